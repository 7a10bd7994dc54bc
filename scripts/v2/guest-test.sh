#!/usr/bin/env bash
# Runs as root inside the guest that scripts/test-v2.sh boots; never run it on
# a machine you want to keep. Prints a line for each check and, last, a count:
#
#   ok 1 - the cgroup tree is unified
#   not ok 2 - ...
#   # what was seen instead
#   1 passed, 1 failed
#
# The first half states what Plimsoll takes for granted about Docker and
# systemd on cgroup v2, so that a new release which behaves otherwise shows
# here, before the half that tests Plimsoll itself. That one needs `plimsoll`
# beside this script.

set -Eeuo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly cgroups=/sys/fs/cgroup
readonly image=busybox:v2

# --- reporting -----------------------------------------------------------

passed=0
failed=0

report() { # report ok|"not ok" NAME
  if [[ $1 == ok ]]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  printf '%s %d - %s\n' "$1" "$((passed + failed))" "$2"
}

note() {
  local line
  while IFS= read -r line; do printf '# %s\n' "$line"; done <<<"$*"
}

# Every check stands alone: one that fails is told and the next one runs.
check() { # check NAME COMMAND [ARG...]   passes when the command succeeds
  local name=$1 seen
  shift
  if seen=$("$@" 2>&1); then
    report ok "$name"
  else
    report "not ok" "$name"
    note "failed: $*"
    [[ -z $seen ]] || note "$(tail -n 15 <<<"$seen")"
  fi
}

is() { # is NAME WANTED SEEN
  if [[ $2 == "$3" ]]; then
    report ok "$1"
  else
    report "not ok" "$1"
    note "wanted: $2"
    note "seen:   $(tail -n 15 <<<"$3")"
  fi
}

matches() { # matches NAME EXTENDED_REGEX SEEN   in any case of letters
  if grep -Eiq -- "$2" <<<"$3"; then
    report ok "$1"
  else
    report "not ok" "$1"
    note "wanted: something like '$2'"
    note "seen:   $(tail -n 15 <<<"$3")"
  fi
}

# Polls: true as soon as the command is, false when it still is not after
# SECONDS. The last try's output is the one a failed check shows.
within() { # within SECONDS COMMAND [ARG...]
  local deadline=$((SECONDS + $1)) seen
  shift
  while ! seen=$("$@" 2>&1); do
    if [[ $SECONDS -ge $deadline ]]; then
      printf '%s\n' "$seen"
      return 1
    fi
    sleep 0.5
  done
}

# A command outside a check that fails ends the script; the closing line still
# comes, so the reader is told where it stopped.
died_at=
trap 'died_at=$LINENO' ERR

# shellcheck disable=SC2317 # called by the trap
finish() {
  local status=$?
  if [[ $failed -gt 0 ]]; then
    diagnose || true
  elif [[ $status -ne 0 ]]; then
    note "the script broke off at line ${died_at:-?} with status $status"
  fi
  printf '%d passed, %d failed\n' "$passed" "$failed"
}
trap finish EXIT

diagnose() {
  note "--- containers"
  note "$(docker ps -a --no-trunc 2>&1 | tail -n 10)"
  if [[ -x $here/plimsoll ]]; then
    note "--- the service's log"
    note "$(journalctl -u plimsoll --no-pager -o cat 2>&1 | tail -n 60)"
  fi
}

fails() { ! "$@"; }

# --- what the checks read ------------------------------------------------

# A hung engine must cost one check, not the run.
docker() { timeout 120 docker "$@"; }

# SLICE -> its directory: systemd nests at every hyphen.
slice_dir() {
  local part name='' dir=$cgroups
  local -a parts
  IFS=- read -ra parts <<<"${1%.slice}"
  for part in "${parts[@]}"; do
    name+=${name:+-}$part
    dir+=/$name.slice
  done
  printf '%s\n' "$dir"
}

caps() { # caps DIR -> "cpu.max, memory.max, memory.swap.max, pids.max"
  local file values=()
  for file in cpu.max memory.max memory.swap.max pids.max; do
    values+=("$(cat "$1/$file" 2>&1)")
  done
  printf '%s, %s, %s, %s\n' "${values[@]}"
}

at_least() { [[ ${1:-0} -ge $2 ]] || { echo "$1 is below $2"; return 1; }; }
event_count() { awk -v key="$2" '$1 == key { print $2 }' "$1/memory.events"; }
oom_killed() { at_least "$(event_count "$1" oom_kill)" 1; }
memory_reaches() { at_least "$(cat "$1/memory.current")" "$2"; }

# Holds 48 MiB without touching a disk: dd fills its buffer, then waits for a
# reader that never reads.
readonly hold_48_mib='dd if=/dev/zero bs=48M count=1 2>/dev/null | sleep 100000'

# --- Docker on cgroup v2 -------------------------------------------------

make_image() {
  local root
  root=$(mktemp -d)
  mkdir -p "$root"/{bin,tmp,etc}
  cp /bin/busybox "$root/bin/"
  chroot "$root" /bin/busybox --install -s /bin
  tar -C "$root" -c . | docker import --change 'CMD ["sh"]' - "$image"
  rm -rf "$root"
}

check_platform() {
  is "the cgroup tree is unified" cgroup2fs "$(stat -fc %T "$cgroups")"
  is "no cgroup v1 hierarchy is mounted" 0 "$(awk '$3 == "cgroup"' /proc/mounts | wc -l)"
  matches "the controllers Plimsoll needs are there" '^cpu io memory pids $' \
    "$(tr ' ' '\n' <"$cgroups/cgroup.controllers" | grep -xE 'cpu|io|memory|pids' | sort | tr '\n' ' ')"
  check "Docker answers" within 60 docker version
  is "Docker reports cgroup version 2" 2 "$(docker info -f '{{.CgroupVersion}}' 2>&1)"
  is "Docker reports the systemd driver" systemd "$(docker info -f '{{.CgroupDriver}}' 2>&1)"
  check "a busybox image is made" make_image
}

# --- systemd's slices ----------------------------------------------------

set_property() { timeout 60 systemctl set-property --runtime "$@"; }

set_units_properties() { # UNIT COUNT NAME TYPE VALUE...   as Plimsoll does it
  timeout 60 busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
    org.freedesktop.systemd1.Manager SetUnitProperties 'sba(sv)' "$1" true "${@:2}"
}

check_slices() {
  local hex team user dir id
  hex=$(printf '0123456789abcdef%.0s' 1 2)
  team=plimsoll-t$hex
  user=$team-u$hex.slice
  dir=$cgroups/plimsoll.slice/$team.slice/$user
  is "slices nest at hyphens" "$dir" "$(slice_dir "$user")"

  # Before: no unit, no directory, no child.
  check "properties of a slice that does not exist are accepted" \
    set_property "$user" CPUQuota=50% MemoryMax=256M MemorySwapMax=0 TasksMax=100
  is "and hold at once, before it is started" "50000 100000, 268435456, 0, 100" "$(caps "$dir")"
  check "it can be started" timeout 60 systemctl start "$user"
  is "and keeps them" "50000 100000, 268435456, 0, 100" "$(caps "$dir")"

  id=$(docker run -d --network none --cgroup-parent "$user" --cpus 2 "$image" sh -c "$hold_48_mib" 2>&1) || true
  check "a container with more CPU than its slice starts, in its place" test -d "$dir/docker-$id.scope"
  is "its own cap is what was asked" "200000 100000" "$(cat "$dir/docker-$id.scope/cpu.max" 2>&1)"

  check "properties of a slice with children are accepted" \
    set_property "$user" CPUQuota=75% MemoryMax=300M TasksMax=150
  is "and hold" "75000 100000, 314572800, 0, 150" "$(caps "$dir")"
  check "systemd reloads" timeout 60 systemctl daemon-reload
  is "the caps survive it" "75000 100000, 314572800, 0, 150" "$(caps "$dir")"

  # Why Plimsoll must not write the files itself.
  echo '33333 100000' >"$dir/cpu.max" || true
  echo 123456789 >"$dir/memory.max" || true
  check "the same properties are set once more" set_property "$user" CPUQuota=75% MemoryMax=300M
  is "and mend what another hand wrote" "75000 100000, 314572800, 0, 150" "$(caps "$dir")"
  echo '33333 100000' >"$dir/cpu.max" || true
  check "systemd reloads again" timeout 60 systemctl daemon-reload
  is "and undoes a direct write" "75000 100000, 314572800, 0, 150" "$(caps "$dir")"

  # D-Bus: CPU in microseconds per second (millicores x 1000), no zeroes.
  check "the bus takes all caps in one call" set_units_properties "$user" \
    4 CPUQuotaPerSecUSec t 1234000 MemoryMax t 314572800 MemorySwapMax t 0 TasksMax t 120
  is "and they hold" "123400 100000, 314572800, 0, 120" "$(caps "$dir")"
  check "a call with one bad value is refused" \
    fails set_units_properties "$user" 2 MemoryMax t 209715200 TasksMax t 0
  is "and changes nothing" "123400 100000, 314572800, 0, 120" "$(caps "$dir")"
  check "the largest number means no cap" set_units_properties "$user" \
    2 CPUQuotaPerSecUSec t 18446744073709551615 TasksMax t 18446744073709551615
  is "and lifts it" "max 100000, 314572800, 0, max" "$(caps "$dir")"

  # Lowering a slice below its use does not fail as on v1; it kills.
  check "the container holds its memory" within 60 memory_reaches "$dir" 50000000
  check "a memory cap below the use is accepted" set_property "$user" MemoryMax=20M
  check "and the kernel kills for it" within 30 oom_killed "$dir"

  docker rm -f "$id" >/dev/null 2>&1 || true
  check "the caps are set anew" set_property "$user" CPUQuota=75% MemoryMax=300M TasksMax=150
  is "a slice outlives its last container" active "$(systemctl is-active "$user")"
  check "an empty slice can be stopped" timeout 60 systemctl stop "$user"
  check "its directory goes" test ! -e "$dir"
  id=$(docker run -d --network none --cgroup-parent "$user" "$image" sleep 100000 2>&1) || true
  check "the next container brings it back" test -d "$dir/docker-$id.scope"
  is "with its caps" "75000 100000, 314572800, 0, 150" "$(caps "$dir")"
  docker rm -f "$id" >/dev/null 2>&1 || true
  timeout 60 systemctl stop "$user" || true
  timeout 60 systemctl revert "$user" >/dev/null 2>&1 || true
}

# --- Plimsoll ------------------------------------------------------------

readonly gateway=unix:///run/plimsoll/docker.sock
readonly api_socket=/run/plimsoll/api.sock

# METHOD PATH [BODY] -> the body, then the status on a line of its own.
api() {
  curl -sS --max-time 30 --unix-socket "$api_socket" -X "$1" \
    -H 'Content-Type: application/json' ${3+--data "$3"} \
    -w '\n%{http_code}\n' "http://localhost$2"
}

as() { # as USER DOCKER_ARG...   the tenant's docker, through the gateway
  local name=$1
  shift
  timeout 120 runuser -u "$name" -- docker -H "$gateway" "$@"
}

refuses_400_mib() { # refuses_400_mib USER
  local seen
  if seen=$(as "$1" run -d --memory 400m "$image" sleep 100000 2>&1); then
    echo "it was allowed: $seen"
    return 1
  fi
  printf '%s\n' "$seen"
  grep -iq 'quota exceeded' <<<"$seen"
}

usage_holds() { # usage_holds USER JQ_CONDITION
  local body
  body=$(api GET "/api/usage/user/$1" | sed '$d')
  jq -e "$2" <<<"$body" >/dev/null || {
    printf '%s\n' "$body"
    return 1
  }
}

ready() { [[ $(curl -sS --max-time 5 -o /dev/null -w '%{http_code}' http://127.0.0.1:7180/readyz) == 200 ]]; }

start_plimsoll() {
  systemctl reset-failed plimsoll.service 2>/dev/null || true
  systemd-run --unit plimsoll --setenv=RUST_BACKTRACE=1 \
    /usr/local/bin/plimsoll serve --data-dir /var/lib/plimsoll \
    --listen 127.0.0.1:7180 --gateway "$gateway"
}

check_plimsoll() {
  local answer ada_id ada_slice ada_dir holder scope caps_wanted

  install -m 0755 "$here/plimsoll" /usr/local/bin/plimsoll
  check "the binary finds its libraries" fails grep -i 'not found' <(ldd /usr/local/bin/plimsoll 2>&1)
  check "the binary runs" timeout 60 plimsoll --version
  useradd -m -u 3001 ada
  useradd -m -u 3002 ben

  check "the server starts as a systemd service" start_plimsoll
  check "and is ready" within 120 ready

  answer=$(api POST /api/users '{"name":"ada","osUid":3001}' 2>&1) || true
  is "user ada is created" 201 "$(tail -n 1 <<<"$answer")"
  ada_id=$(sed '$d' <<<"$answer" | jq -r .id 2>/dev/null) || true
  matches "with a UUID" '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' "$ada_id"
  answer=$(api POST /api/users '{"name":"ben","osUid":3002}' 2>&1) || true
  is "user ben is created" 201 "$(tail -n 1 <<<"$answer")"
  answer=$(api PUT /api/quotas/user/ada '{"maxMemoryGB":0.5,"maxCpuCores":1}' 2>&1) || true
  matches "ada's quota is set" '^20[0-9]$' "$(tail -n 1 <<<"$answer")"

  ada_slice=plimsoll-u${ada_id//-/}.slice
  ada_dir=$(slice_dir "$ada_slice")
  holder=$(as ada run -d --memory 256m "$image" sh -c "$hold_48_mib" 2>&1) || true
  holder=$(tail -n 1 <<<"$holder")
  matches "ada runs a container of 256 MiB" '^[0-9a-f]{64}$' "$holder"
  scope=$(find "$cgroups" -type d -name "docker-$holder.scope" 2>/dev/null | head -n 1)
  is "its cgroup is under ada's slice" "$ada_dir/docker-$holder.scope" "$scope"

  # Judged where the container really is, so a wrong place is told once.
  [[ -z $scope ]] || ada_dir=$(dirname "$scope")
  caps_wanted="100000 100000, 536870912"
  matches "the slice has ada's CPU and memory as caps" "^$caps_wanted," "$(caps "$ada_dir")"
  matches "and a cap on processes" '^[0-9]+$' "$(cat "$ada_dir/pids.max" 2>&1)"
  is "the container has its own memory cap" 268435456 "$(cat "$scope/memory.max" 2>&1)"
  check "systemd reloads" timeout 60 systemctl daemon-reload
  matches "ada's caps survive it" "^$caps_wanted," "$(caps "$ada_dir")"

  check "a container past ada's quota is refused" refuses_400_mib ada
  answer=$(as ben ps -aq --no-trunc 2>&1) || true
  is "ben does not see ada's container" "" "$answer"

  check "ada's reserved memory is 0.25 GB" within 30 usage_holds ada '.reservedMemoryGB == 0.25'
  # 48 MiB are held; 0.1 would be somebody else's memory.
  check "ada's measured memory shows what is held" within 60 \
    usage_holds ada '.currentMemoryGB >= 0.045 and .currentMemoryGB < 0.1'

  check "the server is killed outright" systemctl kill -s KILL plimsoll.service
  within 30 fails systemctl is-active -q plimsoll.service || true
  check "and started again" start_plimsoll
  check "it is ready again" within 120 ready
  check "it still has 0.25 GB reserved" within 30 usage_holds ada '.reservedMemoryGB == 0.25'
  check "it measures again" within 60 usage_holds ada '.currentMemoryGB >= 0.045 and .currentMemoryGB < 0.1'
  matches "ada's caps are as before" "^$caps_wanted," "$(caps "$ada_dir")"
  check "and the quota still refuses" refuses_400_mib ada

  check "ada removes her container" as ada rm -f "$holder"
  check "ada has no memory reserved" within 30 usage_holds ada '.reservedMemoryGB == 0'
  answer=$(as ada run --rm --memory 400m "$image" echo it-ran 2>&1) || true
  matches "the room is there again" it-ran "$answer"

  # Its status says whether the host lacks something, which this one may.
  answer=$(timeout 60 plimsoll doctor 2>&1) || { [[ $? -ne 124 ]] || answer="doctor did not end"; }
  matches "doctor knows of cgroup v2" 'cgroup ?v2|cgroup.*\b2\b' "$answer"
  matches "doctor knows of systemd" systemd "$answer"

  check "the server stops when asked" timeout 90 systemctl stop plimsoll.service
  check "without an error" fails systemctl is-failed plimsoll.service
}

# -------------------------------------------------------------------------

check_platform
check_slices
if [[ -f $here/plimsoll ]]; then
  check_plimsoll
else
  note "no plimsoll was handed in: its own checks are left out"
fi
[[ $failed -eq 0 ]]
