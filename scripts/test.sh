#!/usr/bin/env bash
# make test: everything CI runs, in CI's order, on a real engine; ends at the first step that
# fails, and fails too when the tests leave something behind on the machine.

# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

step() { printf '\n==> %s  %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"; }

# What tests could leave on the machine, one a line.
traces() {
  docker_ ps --all --format 'container {{.Names}}'
  docker_ network ls --format 'network {{.Name}}'
  docker_ volume ls --format 'volume {{.Name}}'
  find /sys/fs/cgroup -maxdepth 2 -type d -name 'plimsoll*' -printf 'cgroup %p\n' 2>/dev/null
  getent passwd | sed -n 's/^\(plimsoll[^:]*\):.*/user \1/p'
  local exe name
  for exe in /proc/[0-9]*/exe; do
    name=$(readlink "$exe" 2>/dev/null) || continue
    [[ $name == */plimsoll ]] && printf 'process %s %s\n' "$(cut -d/ -f3 <<<"$exe")" "$name"
  done
  return 0
}
new_traces() { comm -13 <(printf '%s\n' "$before" | sort) <(traces | sort); }
no_new_traces() { [[ -z $(new_traces) ]]; }

cleanup() {
  local rc=$?
  ending
  if [[ $engine_started -eq 1 ]]; then step engine stop; fi
  leave_engine || rc=1
  if [[ $rc -eq 0 ]]; then step "all passed in $SECONDS s"; else step "FAILED (exit $rc) after $SECONDS s"; fi
  exit "$rc"
}

need_root
cd "$REPO"
end_with cleanup

step engine and image
need_engine_packages
need_client_packages
need_build_packages
enter_engine
before=$(traces)

step formatting
cargo fmt --all --check

step clippy
cargo clippy --locked --workspace --all-targets -- -D warnings

step licences, bans and sources of dependencies
"$REPO/scripts/deny.sh"

step build
cargo build --locked --workspace --all-targets

step tests
# What the tests of pulls and pushes push to.
need_packages docker-registry=docker-registry
# What the history is sent to and read back from.
need_packages prometheus=prometheus victoria-metrics=victoria-metrics
# Where mail goes to, and what is told what fires.
need_packages /usr/lib/python3/dist-packages/aiosmtpd=python3-aiosmtpd \
  prometheus-alertmanager=prometheus-alertmanager
cargo test --locked --workspace --no-fail-fast

step clients that others wrote
"$REPO/scripts/clients.sh"

step fuzzing
"$REPO/scripts/fuzz.sh"

step links in the documentation
"$REPO/scripts/check-links.sh"
RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --quiet

step shell scripts
need_packages shellcheck=shellcheck
shellcheck --external-sources "$REPO"/scripts/*.sh "$REPO"/.ci/run

step cgroup v2
if [[ -x $REPO/scripts/test-v2.sh ]]; then
  "$REPO/scripts/test-v2.sh" --binary "${CARGO_TARGET_DIR:-$REPO/target}/debug/plimsoll"
else
  echo 'skipped: no scripts/test-v2.sh'
fi

step leftovers
# The engine removes a --rm container a moment after its client has gone.
if wait_until 15 no_new_traces; then
  echo none
else
  new_traces
  # On an engine that others use as well, they may be theirs.
  [[ $engine_started -eq 0 ]] || die 'the tests left the above behind'
  warn 'the above came up during the tests, on an engine that was running already'
fi
