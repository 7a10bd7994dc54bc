#!/usr/bin/env bash
# Line coverage of the workspace's tests, the real engine included; prints the total and fails
# under COVERAGE_MIN percent (85).
#
# cargo-tarpaulin and not cargo-llvm-cov: the latter needs the llvm-tools of the very LLVM in
# rustc, a rustup component that not every machine can fetch; tarpaulin reads the profiles by
# itself. No registry has it prebuilt, so the first run builds it into .cache (4 to 5 minutes of
# CPU); that is also why this is no part of `make test`.

# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

VERSION=0.37.5
minimum=${COVERAGE_MIN:-85}

need_root
need_engine_packages
need_client_packages
need_build_packages
cd "$REPO"

tool=$CACHE_DIR/tarpaulin-$VERSION
if [[ ! -x $tool/bin/cargo-tarpaulin ]]; then
  say "building cargo-tarpaulin $VERSION into .cache, once"
  cargo install cargo-tarpaulin --quiet --locked --version "$VERSION" --root "$tool" \
    --target-dir "$CACHE_DIR/build"
  rm -rf "$CACHE_DIR/build"
fi

end_with end_engine

enter_engine

# --engine llvm: what the server does as a child of a test counts too, and nothing runs under
# ptrace. A folder of its own: instrumented objects would evict those of `make test`.
#
# Without the simulation: it kills its server hundreds of times, which takes the profiles along, and
# tarpaulin does not see it end. What it runs is also run by the contract tests.
"$tool/bin/cargo-tarpaulin" tarpaulin --engine llvm --follow-exec --workspace --locked \
  --exclude-files '*/tests/*' --exclude-files '*/examples/*' --exclude-files '*/benches/*' \
  --target-dir "$CACHE_DIR/coverage" --skip-clean --timeout 600 \
  --color Never --out Stdout --fail-under "$minimum" \
  -- --skip the_ledger_is_its_model
