#!/usr/bin/env bash
# Tests Plimsoll on what most users run and few build machines have: cgroup v2
# under systemd. Boots a Debian guest in QEMU (pure emulation, so it needs no
# KVM), runs scripts/v2/guest-test.sh in it and reports what that says.
#
#   scripts/test-v2.sh [--binary PATH]
#
#   --binary PATH   the plimsoll to test; without it, only what Plimsoll relies
#                   on (Docker's and systemd's own behaviour) is checked
#
# Environment:
#   PLIMSOLL_CACHE_DIR    where v2/<hash of the recipe> is kept (.cache)
#   PLIMSOLL_V2_TIMEOUT_S longest life of the guest, in seconds (600)
#
# Exit status: 0 all passed; 1 a check failed; 2 wrong usage, or the guest
# could not be built; 3 the guest gave no verdict in time.
#
# Needs root, for building the guest and installing missing Debian packages.

set -euo pipefail

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
readonly repo
readonly recipe=$repo/scripts/v2
readonly timeout_s=${PLIMSOLL_V2_TIMEOUT_S:-600}
cache=$(realpath -m -- "${PLIMSOLL_CACHE_DIR:-$repo/.cache}")/v2
readonly cache
readonly console_tail_lines=60

say() { printf '# %s\n' "$*"; }
die() {
  printf 'test-v2: %s\n' "$1" >&2
  exit "${2:-2}"
}

binary=
while [[ $# -gt 0 ]]; do
  case $1 in
    --binary)
      [[ $# -ge 2 ]] || die "--binary needs a path"
      binary=$2
      shift 2
      ;;
    --binary=*)
      binary=${1#*=}
      shift
      ;;
    -h | --help)
      sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "unknown argument '$1'; usage: scripts/test-v2.sh [--binary PATH]" ;;
  esac
done
[[ -z $binary || (-f $binary && -x $binary) ]] || die "'$binary' is no executable file"
[[ $timeout_s =~ ^[1-9][0-9]*$ ]] || die "PLIMSOLL_V2_TIMEOUT_S must be a whole number of seconds"
[[ $(uname -m) == x86_64 ]] || die "the guest is built for x86_64, this machine is $(uname -m)"
[[ $EUID -eq 0 ]] || die "must run as root (sudo scripts/test-v2.sh ...)"

# --- the machine ---------------------------------------------------------

ensure_packages() {
  local pair missing=()
  for pair in mmdebstrap:mmdebstrap qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs \
    flock:util-linux setpriv:util-linux; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  command -v apt-get >/dev/null || die "please install: ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  local log
  log=$(apt-get update 2>&1 &&
    apt-get install -y --no-install-recommends "${missing[@]}" 2>&1) || {
    printf '%s\n' "$log" | tail -n 20 >&2
    die "apt-get could not install ${missing[*]}"
  }
}

# --- the guest's image, cached -------------------------------------------

image_key() {
  sha256sum "$recipe/build-image.sh" "$recipe/plimsoll-guest-test.service" |
    cut -d' ' -f1 | sha256sum | cut -c1-16
}

# Sets `image`. A shared lock, held until this script ends, keeps a run beside
# this one from pruning the image; building and pruning take it exclusively.
open_image() {
  local started=$SECONDS
  mkdir -p -- "$cache"
  image=$cache/$(image_key)
  exec {lock}>"$cache/lock"
  flock -s "$lock"
  while [[ ! -d $image ]]; do
    flock -x "$lock"
    if [[ ! -d $image ]]; then
      say "building the guest image (cold cache)"
      find "$cache" -mindepth 1 -maxdepth 1 -type d -exec rm -rf -- {} +
      "$recipe/build-image.sh" "$image" {lock}>&- || die "the guest image could not be built"
      say "guest image built in $((SECONDS - started)) s"
    fi
    # Not atomic on every kernel, hence the loop.
    flock -s "$lock"
  done
}

# The guest has this machine's Debian release, or an older one than the binary
# was linked on; saying so beats a loader's message from inside the guest.
check_glibc() {
  local have needs
  have=$(<"$image/glibc")
  needs=$({ grep -aoE 'GLIBC_[0-9]+\.[0-9]+' -- "$binary" || true; } | sed 's/GLIBC_//' | sort -uV | tail -n 1)
  [[ -z $needs || $(printf '%s\n' "$needs" "$have" | sort -V | tail -n 1) == "$have" ]] ||
    die "'$binary' needs glibc $needs, the guest has $have; build it on Debian bookworm or for musl"
}

# --- one run -------------------------------------------------------------

work=
qemu=
follower=
# shellcheck disable=SC2317 # called by the trap
cleanup() {
  [[ -z $follower ]] || kill "$follower" 2>/dev/null || true
  if [[ -n $qemu ]]; then
    kill -KILL "$qemu" 2>/dev/null || true
    wait "$qemu" 2>/dev/null || true
  fi
  [[ -z $work ]] || rm -rf --one-file-system -- "$work"
}

# The second disk: the test script and, if given, the binary.
make_input_disk() {
  local kib
  mkdir "$work/in"
  install -m 0755 "$recipe/guest-test.sh" "$work/in/guest-test.sh"
  [[ -z $binary ]] || install -m 0755 -- "$binary" "$work/in/plimsoll"
  kib=$(du -sk --apparent-size "$work/in" | cut -f1)
  truncate -s "$((kib + kib / 8 + 8192))K" "$work/in.ext4"
  mke2fs -q -F -t ext4 -O '^has_journal' -L plimsoll-in -d "$work/in" \
    "$work/in.ext4"
  rm -rf -- "$work/in"
}

boot() {
  : >"$work/console"
  : >"$work/results"
  # setpriv: should this script be killed outright, the guest dies with it.
  # mitigations=off, no5lvl: both cost emulated time and guard nothing here.
  # panic=-1 with -no-reboot: a kernel panic ends the run instead of its clock.
  setpriv --pdeathsig KILL -- qemu-system-x86_64 \
    -nodefaults -no-user-config -display none -nic none -no-reboot \
    -accel tcg,thread=multi -cpu max -smp 2 -m 2048 \
    -kernel "$image/vmlinuz" -initrd "$image/initrd.img" \
    -append "root=/dev/vda rw apparmor=0 console=ttyS0 loglevel=5 panic=-1 mitigations=off no5lvl audit=0 nowatchdog systemd.show_status=1" \
    -drive "file=$image/root.ext4,format=raw,if=virtio,snapshot=on" \
    -drive "file=$work/in.ext4,format=raw,if=virtio,readonly=on" \
    -serial "file:$work/console" \
    -device virtio-serial-pci \
    -chardev "file,id=results,path=$work/results" \
    -device virtserialport,chardev=results,name=plimsoll.results \
    </dev/null >"$work/qemu.log" 2>&1 {lock}>&- &
  qemu=$!
}

# Waits for the guest to turn itself off; false when its time ran out.
await_guest() {
  local deadline=$((SECONDS + timeout_s))
  while kill -0 "$qemu" 2>/dev/null; do
    [[ $SECONDS -lt $deadline ]] || return 1
    sleep 0.2
  done
  wait "$qemu" 2>/dev/null || true
  qemu=
}

no_verdict() {
  {
    printf 'test-v2: no verdict: %s\n' "$1"
    printf -- '--- QEMU said:\n'
    tail -n 10 "$work/qemu.log"
    printf -- '--- the end of the console:\n'
    # Without systemd's progress bar, which is a line for every half second.
    tr -d '\r\033' <"$work/console" | grep -av 'Job .* running (' | sed 's/\[[0-9;]*[mK]//g' |
      tail -n "$console_tail_lines" || true
  } >&2
  exit 3
}

main() {
  ensure_packages
  open_image
  [[ -z $binary ]] || check_glibc

  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # QEMU keeps what the guest writes to its root disk in an unlinked file.
  work=$(mktemp -d)
  local started=$SECONDS in_time=yes
  make_input_disk
  boot
  setpriv --pdeathsig TERM -- tail -n +1 -s 0.2 -f --pid="$qemu" "$work/results" 2>/dev/null &
  follower=$!
  await_guest || in_time=no
  if [[ $in_time == no ]]; then
    kill -KILL "$qemu"
    wait "$qemu" 2>/dev/null || true
    qemu=
  fi
  # tail leaves by itself once QEMU is gone and the last lines are out.
  wait "$follower" 2>/dev/null || true
  follower=
  [[ $in_time == yes ]] || no_verdict "the guest did not finish within $timeout_s s"

  # Nothing is taken on trust: the script came to its end, counted what it
  # printed, and printed at least one check.
  local oks not_oks
  oks=$(grep -c '^ok ' "$work/results" || true)
  not_oks=$(grep -c '^not ok ' "$work/results" || true)
  grep -q '^# exit status [0-9]*$' "$work/results" || no_verdict "the guest went off before its script ended"
  grep -qx "$oks passed, $not_oks failed" "$work/results" ||
    no_verdict "the script's closing line is missing or miscounts ($oks ok, $not_oks not ok)"
  [[ $((oks + not_oks)) -gt 0 ]] || no_verdict "the script checked nothing"
  say "guest ran for $((SECONDS - started)) s"
  [[ $not_oks -eq 0 ]] && grep -qx '# exit status 0' "$work/results"
}

main
