#!/usr/bin/env bash
# make run: from nothing to a Plimsoll with a team and two users to try it as. Ctrl-C ends what
# this started; the data stays in .run/data, so a second run goes on where the first ended.

# The functions that the traps reach look unreachable.
# shellcheck disable=SC2317
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

DATA_DIR=$RUN_DIR/data
SERVE_LOG=$RUN_DIR/serve.log
SERVE_PID=$RUN_DIR/serve.pid
# OS users this script made, one a line: kept in a file so that a later run removes them even
# when this one is killed.
MADE_USERS=$RUN_DIR/made-users
LISTEN=${PLIMSOLL_EXAMPLE_LISTEN:-127.0.0.1:7180}
# Not under the checkout: other users must reach the sockets, and a checkout may be in /root.
SOCKET_DIR=${PLIMSOLL_EXAMPLE_SOCKET_DIR:-/run/plimsoll}
GATEWAY=$SOCKET_DIR/docker.sock
API=$SOCKET_DIR/api.sock
# Fixed, so that the users in the data match the OS users of the next run.
ADA_UID=59181
BEN_UID=59182
# The dev profile: it builds in a fraction of the time of a release (thin LTO, few codegen units)
# and shares its work with `make test`. PROFILE=release is for looking at speed.
PROFILE=${PROFILE:-dev}

# ---- What the example consists of: every call to the API is here ---------------------------

# api METHOD PATH [JSON]: as root over the admin socket. "Already there" (409) is success.
api() {
  local method=$1 path=$2 body=${3:-} status answer=$RUN_DIR/answer.json
  local args=(--silent --show-error --max-time 10 --unix-socket "$API" --request "$method"
    --output "$answer" --write-out '%{http_code}')
  [[ -z $body ]] || args+=(--header 'Content-Type: application/json' --data "$body")
  status=$(curl "${args[@]}" "http://localhost$path") || die "$method $path: no answer on $API"
  [[ $status == 2?? || $status == 409 ]] || {
    cat -- "$answer" >&2
    die "$method $path answered $status"
  }
}

make_example() {
  # Once per data directory: a later run must not undo what was tried out in between.
  local made=$DATA_DIR/example.made
  [[ -e $made ]] && return
  api POST /api/users "{\"name\":\"ada\",\"osUid\":$ADA_UID}"
  api POST /api/users "{\"name\":\"ben\",\"osUid\":$BEN_UID}"
  # Before they join: a first team's allotment is a copy of the user's own quota.
  api PUT /api/quotas/user/ada '{"maxCpuCores":1,"maxMemoryGB":1}'
  api PUT /api/quotas/user/ben '{"maxCpuCores":1,"maxMemoryGB":1}'
  api POST /api/teams '{"name":"ml"}'
  api PUT /api/teams/ml/members/ada '{"role":"lead"}'
  api PUT /api/teams/ml/members/ben '{"role":"member"}'
  touch "$made"
}

print_tour() {
  local name user
  cat <<TEXT

Plimsoll is ready. Team ml has two members, ada (lead) and ben, with 1 core and 1 GiB each.
TEXT
  for name in ada ben; do
    user=plimsoll-$name
    cat <<TEXT

As $name: a container that fits, one that is refused, and what $name uses
  $(as "$user") docker -H unix://$GATEWAY run --rm --memory 256m plimsoll/example echo hello
  $(as "$user") docker -H unix://$GATEWAY run --rm --memory 4g plimsoll/example echo hello
  $(as "$user") curl -s --unix-socket $API http://localhost/api/usage/user/$name
TEXT
  done
  cat <<TEXT

API            http://$LISTEN/api/   (root over $API needs no token)
API reference  http://$LISTEN/api/docs and http://$LISTEN/api/openapi.json
Admin token    $DATA_DIR/admin.token
Command line   $BINARY --help
Log            $SERVE_LOG

Ctrl-C stops it.
TEXT
}

# ---------------------------------------------------------------------------------------------

# The words that run a command as USER here.
as() {
  if have sudo; then
    printf 'sudo -u %s' "$1"
  elif have runuser; then
    # Unlike sudo it keeps root's HOME, where the docker CLI then may not read its settings.
    printf 'runuser -u %s -- env HOME=/' "$1"
  else
    printf 'setpriv --reuid %s --regid nogroup --clear-groups env HOME=/' "$1"
  fi
}

make_os_user() {
  local user=$1 uid=$2 holder
  if id "$user" >/dev/null 2>&1; then
    [[ $(id -u "$user") == "$uid" ]] ||
      die "the OS user $user exists with uid $(id -u "$user"), the example needs $uid; remove it: userdel $user"
    return
  fi
  holder=$(getent passwd "$uid" | cut -d: -f1) || true
  [[ -z $holder ]] || die "uid $uid, which the example needs for $user, belongs to $holder"
  # Recorded first: a kill in between must not leave a user nobody removes.
  printf '%s\n' "$user" >>"$MADE_USERS"
  # SYS_UID_MAX only silences the remark that the uid is above the range for system users.
  useradd --system --uid "$uid" --gid nogroup --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin --key SYS_UID_MAX=59999 "$user"
}

remove_os_users() {
  local user
  [[ -f $MADE_USERS ]] || return 0
  while IFS= read -r user; do
    if id "$user" >/dev/null 2>&1; then
      userdel "$user" 2>/dev/null || warn "could not remove the OS user $user: userdel $user"
    fi
  done <"$MADE_USERS"
  rm -f "$MADE_USERS"
}

# The pid of the engine that a `make run` started, which a later run ends when this one is killed.
OWN_ENGINE=$RUN_DIR/run-engine.pid
engine_pid() { cat "$RUN_DIR/engine/dockerd.pid" 2>/dev/null; }

engine_started=0
cleanup() {
  local rc=$?
  # A second Ctrl-C must not cut the tidying short.
  trap '' INT TERM HUP
  trap - EXIT
  local pid
  if pid=$(cat "$SERVE_PID" 2>/dev/null); then
    say "stopping the server"
    end_process "$pid" "$DATA_DIR" 30
    rm -f "$SERVE_PID" "$GATEWAY" "$API"
    rmdir "$SOCKET_DIR" 2>/dev/null || true
  fi
  if [[ $engine_started -eq 1 ]]; then
    "$REPO/scripts/engine.sh" stop 8>&- || rc=1
    rm -f "$OWN_ENGINE"
    # Only where the engine was ours alone: an empty cgroup of another Plimsoll holds its caps.
    remove_empty_cgroups
  fi
  remove_os_users
  rm -f "$RUN_DIR/answer.json"
  say "the data stays in $DATA_DIR"
  exit "$rc"
}

# Over the socket: on the port, another server could be the one that answers.
ready() {
  [[ $(curl -s -o /dev/null --max-time 2 -w '%{http_code}' --unix-socket "$API" http://localhost/readyz) == 200 ]]
}
ready_or_dead() { ready || ! kill -0 "$server" 2>/dev/null; }

need_root
need_engine_packages
need_build_packages
mkdir -p "$RUN_DIR"
exec 8>"$RUN_DIR/run.lock"
flock -n 8 || die "make run is already going in this checkout"

trap cleanup EXIT
trap 'exit 0' INT TERM HUP

# What a killed run left.
if old=$(cat "$SERVE_PID" 2>/dev/null); then end_process "$old" "$DATA_DIR" 30; fi
rm -f "$SERVE_PID"
if curl -s --max-time 2 -o /dev/null --unix-socket "$GATEWAY" http://localhost/_ping 2>/dev/null; then
  die "a Plimsoll already serves on $GATEWAY; stop it, or set PLIMSOLL_EXAMPLE_SOCKET_DIR and PLIMSOLL_EXAMPLE_LISTEN"
fi

# 8>&- on all that may outlive this script: the lock must not be inherited.
engine=$("$REPO/scripts/engine.sh" start 8>&-)
if [[ $engine == started ]]; then engine_pid >"$OWN_ENGINE"; fi
if [[ -e $OWN_ENGINE && $(engine_pid) == "$(cat "$OWN_ENGINE")" ]]; then engine_started=1; fi
"$REPO/scripts/image.sh"

say "building ($PROFILE profile)"
cd "$REPO"
cargo build --locked --profile "$PROFILE" --package plimsoll 8>&-
target=$(cargo metadata --locked --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
# The dev profile is the one whose folder has another name.
BINARY=$target/${PROFILE/#dev/debug}/plimsoll

make_os_user plimsoll-ada "$ADA_UID"
make_os_user plimsoll-ben "$BEN_UID"

mkdir -p "$SOCKET_DIR"
# In a session of its own, so that Ctrl-C reaches this script alone, which then ends the server in
# order. Without these variables: they steer the scripts, and the server refuses keys it does not know.
setsid env -u PLIMSOLL_RUN_DIR -u PLIMSOLL_ENGINE_SOCKET \
  -u PLIMSOLL_EXAMPLE_LISTEN -u PLIMSOLL_EXAMPLE_SOCKET_DIR \
  "$BINARY" serve --data-dir "$DATA_DIR" --listen "$LISTEN" --engine "unix://$ENGINE_SOCKET" \
  --gateway "unix://$GATEWAY" --api-socket "$API" </dev/null >"$SERVE_LOG" 2>&1 8>&- &
server=$!
printf '%s\n' "$server" >"$SERVE_PID"
wait_until 30 ready_or_dead || true
ready || {
  tail -n 20 "$SERVE_LOG" >&2
  die "the server did not become ready; its whole log is $SERVE_LOG"
}

make_example
print_tour

rc=0
wait "$server" || rc=$?
tail -n 20 "$SERVE_LOG" >&2
die "the server ended by itself (exit $rc); its whole log is $SERVE_LOG"
