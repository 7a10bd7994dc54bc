# shellcheck shell=bash
# Shared by the scripts beside it; source it, do not run it.
#
# Everything here must hold on a bare Debian machine: no systemd, no network but the package
# mirrors, possibly nothing installed.

set -euo pipefail

# A root shell made by plain `su` lacks these on Debian.
PATH=$PATH:/usr/sbin:/sbin

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
RUN_DIR=${PLIMSOLL_RUN_DIR:-$REPO/.run}
# shellcheck disable=SC2034 # read by the scripts that source this
CACHE_DIR=$REPO/.cache
DEFAULT_ENGINE_SOCKET=/var/run/docker.sock
ENGINE_SOCKET=${PLIMSOLL_ENGINE_SOCKET:-$DEFAULT_ENGINE_SOCKET}
# shellcheck disable=SC2034 # read by the scripts that source this
EXAMPLE_IMAGE=plimsoll/example:latest

# Messages go to stderr, so a script's stdout stays what its caller asked for.
say() { printf '%s\n' "plimsoll: $*" >&2; }
warn() { printf '%s\n' "plimsoll: warning: $*" >&2; }
die() {
  printf '%s\n' "plimsoll: error: $*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

need_root() {
  [[ $EUID -eq 0 ]] && return
  # Plain sudo drops both, and then cargo is not found or has no toolchain.
  # shellcheck disable=SC2016 # to be typed as it stands
  die 'the engine, cgroups and OS users need root; run: sudo env "PATH=$PATH" "HOME=$HOME" make ...'
}

# A short name for a path, for things whose own path must stay short (a unix socket's path ends at
# 107 bytes, a checkout's may be longer).
path_id() { printf '%s' "$1" | sha256sum | cut -c1-8; }

# need_packages PROGRAM=PACKAGE ...: installs the packages whose program (or file, if it starts
# with a slash) is absent. Touches neither apt nor the network when nothing is.
need_packages() {
  local pair probe missing=()
  for pair in "$@"; do
    probe=${pair%%=*}
    case $probe in
      /*) [[ -e $probe ]] || missing+=("${pair#*=}") ;;
      *) have "$probe" || missing+=("${pair#*=}") ;;
    esac
  done
  [[ ${#missing[@]} -eq 0 ]] && return
  need_root
  have apt-get || die "missing: ${missing[*]}; install them by hand (this machine has no apt-get)"
  say "installing: ${missing[*]}"
  mkdir -p "$RUN_DIR"
  local log=$RUN_DIR/apt.log
  if ! apt_install "${missing[@]}" >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    die "could not install ${missing[*]}; the whole log is $log"
  fi
}

# In a subshell, for the trap.
apt_install() (
  local wait=(-o DPkg::Lock::Timeout=120) policy=/usr/sbin/policy-rc.d
  # Without systemd, init scripts would start the services as they are installed, and an engine
  # started that way would not be ours to stop. Where systemd runs, units start as on any Debian.
  if [[ ! -e $policy && ! -d /run/systemd/system ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  apt-get "${wait[@]}" update &&
    DEBIAN_FRONTEND=noninteractive apt-get "${wait[@]}" install -y --no-install-recommends "$@"
)

need_engine_packages() {
  need_packages docker=docker.io dockerd=docker.io containerd=containerd runc=runc \
    iptables=iptables ip=iproute2 curl=curl flock=util-linux
}

# A docker CLI may come from elsewhere (a newer one in /usr/local/bin); any will do.
need_image_packages() { need_packages /bin/busybox=busybox-static; }

# Clients that the tests run through the gateway.
need_client_packages() { need_packages docker-compose=docker-compose python3=python3; }

need_build_packages() {
  # gcc and the C headers build the bundled SQLite; without certificates cargo fetches nothing.
  need_packages git=git curl=curl gcc=gcc /usr/include/stdio.h=libc6-dev \
    /etc/ssl/certs/ca-certificates.crt=ca-certificates
  if ! have cargo && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  fi
  have cargo && return
  local version
  version=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$REPO/Cargo.toml")
  cat >&2 <<MESSAGE
plimsoll: error: no cargo here, and Debian's own is older than the Rust $version this needs.
Install it with rustup (https://rustup.rs), then run this again:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy
  . "\$HOME/.cargo/env"
MESSAGE
  exit 1
}

# wait_until SECONDS COMMAND...: polls until the command succeeds; 1 when the time is up.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# Is PID a live process whose command line holds TEXT? A pid alone proves nothing: it is reused.
process_is() {
  local pid=$1 text=$2
  [[ $pid =~ ^[0-9]+$ && -r /proc/$pid/cmdline ]] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$text"
}
process_gone() { ! process_is "$@"; }

# end_process PID TEXT SECONDS: TERM, wait, then KILL; returns once it is gone.
end_process() {
  local pid=$1 text=$2 patience=$3
  process_is "$pid" "$text" || return 0
  kill -TERM "$pid" 2>/dev/null || true
  wait_until "$patience" process_gone "$pid" "$text" && return
  warn "process $pid did not end in $patience s; killing it"
  kill -KILL "$pid" 2>/dev/null || true
  wait_until 10 process_gone "$pid" "$text" || die "process $pid will not die"
}

docker_() { docker --host "unix://$ENGINE_SOCKET" "$@"; }

# Removes cgroups under the roots Plimsoll uses that hold nothing any more, children first. The
# kernel refuses to remove one with a process in it, so this cannot hurt a running container.
remove_empty_cgroups() {
  local root
  for root in /sys/fs/cgroup/plimsoll* /sys/fs/cgroup/*/plimsoll*; do
    [[ -d $root ]] || continue
    find "$root" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
}

# Makes sure of an engine with the example image, and tells the tests where it is. Starts one where none
# runs, which leave_engine stops again.
engine_started=0
enter_engine() {
  local engine
  engine=$("$REPO/scripts/engine.sh" start)
  if [[ $engine == started ]]; then engine_started=1; fi
  "$REPO/scripts/image.sh"
  # The default is what the tests use anyway.
  if [[ $ENGINE_SOCKET != "$DEFAULT_ENGINE_SOCKET" ]]; then export PLIMSOLL_ENGINE=unix://$ENGINE_SOCKET; fi
}

leave_engine() {
  [[ $engine_started -eq 1 ]] || return 0
  local rc=0
  "$REPO/scripts/engine.sh" stop || rc=1
  # Only where the engine was ours alone: an empty cgroup of another Plimsoll holds its caps.
  remove_empty_cgroups
  return "$rc"
}

# end_with FUNCTION: has the script end with it, however it ends. It begins with `ending`.
end_with() {
  # shellcheck disable=SC2064 # now is when the name is known
  trap "$1" EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

# A second Ctrl-C must not cut the tidying short.
ending() {
  trap '' INT TERM HUP
  trap - EXIT
}

# The end of a script that needs nothing tidied but its engine.
end_engine() {
  local rc=$?
  ending
  leave_engine || rc=1
  exit "$rc"
}
