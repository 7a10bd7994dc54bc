#!/usr/bin/env bash
# Fuzzes what reads tenants' requests: each target in fuzz/ for FUZZ_SECONDS (20), two at a time, from the
# corpus that is checked in. What fails is kept in .run/fuzz; `make fuzz` builds as cargo-fuzz would with
# `--sanitizer none`, which is all that safe Rust needs and works on a stable toolchain.

# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

need_build_packages
# libFuzzer is written in C++.
need_packages g++=g++
cd "$REPO"

seconds=${FUZZ_SECONDS:-20}
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=$CACHE_DIR/fuzz
flags='--cfg fuzzing -Cpasses=sancov-module'
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done

# With a target named, build scripts and macros are built without the flags.
RUSTFLAGS=$flags cargo build --locked --quiet --release --manifest-path fuzz/Cargo.toml \
  --target "$host" --target-dir "$target_dir"

# A target's own findings come on top of the corpus, and go with the run.
fuzz_one() {
  local name=$1 found=$RUN_DIR/fuzz/$1
  rm -rf "$found"
  mkdir -p "$found/corpus"
  if "$target_dir/$host/release/$name" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
    -rss_limit_mb=2048 -artifact_prefix="$found/" "$found/corpus" "fuzz/corpus/$name" \
    >"$found/log" 2>&1; then
    say "fuzz $name: $(sed -n 's/^Done \(.*\)$/\1/p' "$found/log")"
    rm -rf "$found"
  else
    grep --after-context 3 --max-count 1 panicked "$found/log" >&2 || tail -n 20 "$found/log" >&2
    warn "fuzz $name: see $found"
    return 1
  fi
}

names=("$@")
[[ ${#names[@]} -gt 0 ]] || mapfile -t names < <(cd fuzz/corpus && ls)
failed=0
for ((i = 0; i < ${#names[@]}; i += 2)); do
  jobs=()
  for name in "${names[@]:i:2}"; do
    fuzz_one "$name" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
done
exit "$failed"
