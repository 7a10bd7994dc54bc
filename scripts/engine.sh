#!/usr/bin/env bash
# A Docker Engine for development and tests.
#
#   engine.sh start    use the engine on the socket, or start one; prints "started" or "in use"
#   engine.sh stop     end the engine this run directory started, and nothing else
#   engine.sh status   what answers, and whose it is; exit 3 when nothing does
#   engine.sh env      shell lines that point the docker CLI at it: eval "$(scripts/engine.sh env)"
#
# PLIMSOLL_ENGINE_SOCKET (default /var/run/docker.sock) and PLIMSOLL_RUN_DIR (default .run in the
# checkout) choose another engine. An engine on a socket of its own also gets a network namespace
# of its own: two engines in one namespace fight over docker0 and the DOCKER iptables chains (the
# second to start flushes the first's published ports). Its published ports are therefore
# reachable only inside: nsenter --net --target PID.

# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

ENGINE_DIR=$RUN_DIR/engine
PIDFILE=$ENGINE_DIR/dockerd.pid
LOG=$ENGINE_DIR/dockerd.log
# What the host's network looked like before, so that stop can put it back.
BEFORE=$ENGINE_DIR/before
# Not under the run directory: containerd's sockets live here and their paths must be short.
EXEC_ROOT=/run/plimsoll-engine-$(path_id "$ENGINE_DIR")
# One lock per socket, not per checkout: two checkouts may race for the same socket.
LOCK=/run/lock/plimsoll-engine-$(path_id "$(realpath -m -- "$ENGINE_SOCKET")").lock

answers() {
  [[ -S $ENGINE_SOCKET ]] &&
    [[ $(curl -s --max-time "${1:-2}" --unix-socket "$ENGINE_SOCKET" http://localhost/_ping 2>/dev/null) == OK ]]
}

own_pid() {
  local pid
  pid=$(cat "$PIDFILE" 2>/dev/null) || return 1
  process_is "$pid" "--exec-root $EXEC_ROOT" || return 1
  printf '%s\n' "$pid"
}

socket_is_default() {
  [[ $(realpath -m -- "$ENGINE_SOCKET") == "$(realpath -m -- "$DEFAULT_ENGINE_SOCKET")" ]]
}

# Does this iptables speak to this kernel? Asks for what the engine's own rules need, since the
# nft variant can list tables on kernels that then refuse the compat matches.
iptables_works() {
  local iptables=$1 chain=PLIMSOLL-PROBE works=0
  have "$iptables" || return 1
  "$iptables" -w 5 -t nat -N "$chain" 2>/dev/null || return 1
  "$iptables" -w 5 -t nat -A "$chain" -m addrtype --dst-type LOCAL -j RETURN 2>/dev/null &&
    "$iptables" -w 5 -t nat -A "$chain" -s 192.0.2.0/24 -j MASQUERADE 2>/dev/null &&
    "$iptables" -w 5 -t nat -A "$chain" -p tcp --dport 9 -j DNAT --to-destination 192.0.2.1:9 2>/dev/null &&
    "$iptables" -w 5 -N "$chain" 2>/dev/null &&
    "$iptables" -w 5 -A "$chain" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT 2>/dev/null &&
    works=1
  local table
  for table in nat filter; do
    "$iptables" -w 5 -t "$table" -F "$chain" 2>/dev/null || true
    "$iptables" -w 5 -t "$table" -X "$chain" 2>/dev/null || true
  done
  [[ $works -eq 1 ]]
}

# The name of an iptables that works, or nothing.
pick_iptables() {
  local name
  for name in iptables iptables-legacy iptables-nft; do
    if iptables_works "$name"; then
      printf '%s\n' "$name"
      return
    fi
  done
}

check_cgroups() {
  [[ -e /sys/fs/cgroup/cgroup.controllers || -d /sys/fs/cgroup/memory ]] ||
    die "no cgroups are mounted on /sys/fs/cgroup, which every container needs; without systemd: apt-get install cgroupfs-mount"
}

record_network() {
  local iptables=$1
  {
    printf 'iptables=%s\n' "$iptables"
    printf 'ip_forward=%s\n' "$(cat /proc/sys/net/ipv4/ip_forward)"
    ip link show docker0 >/dev/null 2>&1 && printf 'docker0=1\n' || printf 'docker0=0\n'
    if [[ -n $iptables ]] && "$iptables" -w 5 -S DOCKER-USER >/dev/null 2>&1; then
      printf 'chains=1\n'
    else
      printf 'chains=0\n'
    fi
    if [[ -n $iptables ]] && "$iptables" -w 5 -S FORWARD 2>/dev/null | grep -qx -- '-P FORWARD ACCEPT'; then
      printf 'forward=ACCEPT\n'
    fi
  } >"$BEFORE"
}

was() { sed -n "s/^$1=//p" "$BEFORE"; }

# The engine leaves its bridge, its chains, ip_forward and a dropping FORWARD policy behind. Takes
# away what was not there before; leaves alone what was.
restore_network() {
  [[ -f $BEFORE ]] || return 0
  local iptables table rule
  iptables=$(was iptables)
  if [[ $(was docker0) == 0 ]]; then ip link del docker0 2>/dev/null || true; fi
  if [[ -n $iptables && $(was chains) == 0 ]]; then
    for table in filter nat; do
      # First the rules that jump to the chains or name the bridge, then the chains.
      while IFS= read -r rule; do
        # shellcheck disable=SC2086 # one word per argument, as iptables prints them
        "$iptables" -w 5 -t "$table" ${rule/#-A/-D} 2>/dev/null || true
      done < <("$iptables" -w 5 -t "$table" -S 2>/dev/null |
        grep -E '^-A (PREROUTING|OUTPUT|POSTROUTING|FORWARD) .*(-j DOCKER|docker0)' || true)
      # Emptied all before any is deleted: they refer to each other.
      local chain chains
      chains=$("$iptables" -w 5 -t "$table" -S 2>/dev/null | sed -n 's/^-N \(DOCKER[A-Z0-9-]*\)$/\1/p')
      for chain in $chains; do "$iptables" -w 5 -t "$table" -F "$chain" || true; done
      for chain in $chains; do "$iptables" -w 5 -t "$table" -X "$chain" || true; done
    done
    if [[ $(was forward) == ACCEPT ]]; then "$iptables" -w 5 -P FORWARD ACCEPT || true; fi
  fi
  if [[ $(was ip_forward) == 0 ]]; then echo 0 >/proc/sys/net/ipv4/ip_forward; fi
  rm -f "$BEFORE"
}

# A killed engine takes its containerd along but leaves the pid file, and the next engine waits in
# vain for the process named there if something (an unreaped zombie too) has that pid.
forget_dead_containerd() {
  local file=$EXEC_ROOT/containerd/containerd.pid
  process_is "$(cat "$file" 2>/dev/null)" "$EXEC_ROOT" || rm -f "$file"
}

answers_or_dead() { answers || ! kill -0 "$1" 2>/dev/null; }

launch() {
  # Run inside `bash -c` so that the namespace, where there is one, has a loopback device.
  # shellcheck disable=SC2016 # expanded by the inner shell
  local inner='[ "$1" = private ] && ip link set lo up; shift; exec "$@"' place=shared
  local prefix=(setsid)
  if ! socket_is_default; then
    place=private
    prefix=(setsid unshare --net)
  fi
  # 9>&-: the engine must not inherit the lock.
  "${prefix[@]}" bash -c "$inner" engine "$place" dockerd "$@" </dev/null >>"$LOG" 2>&1 9>&- &
  launched=$!
}

lock() {
  mkdir -p "$(dirname -- "$LOCK")"
  exec 9>"$LOCK"
  flock -w 180 9 || die "another start or stop has held $LOCK for three minutes"
}

start() {
  need_engine_packages
  # Where systemd listens on the socket, the first connection starts the engine and waits for it.
  local patience=2
  [[ -d /run/systemd/system ]] && patience=30
  lock
  if answers "$patience"; then
    say "using the engine on $ENGINE_SOCKET"
    # Seen: an engine started with --bridge=none deletes docker0, whoever made it.
    if socket_is_default && own_pid >/dev/null && ! ip link show docker0 >/dev/null 2>&1; then
      warn "its bridge docker0 is gone, so containers with a network will not start; stop it and start it again"
    fi
    echo 'in use'
    return
  fi
  need_root
  check_cgroups
  # Ours, alive, and not answering.
  if own_pid >/dev/null; then stop_locked; fi
  start_locked
  say "started an engine on $ENGINE_SOCKET (pid $(own_pid), log $LOG)"
  echo started
}

start_locked() {
  mkdir -p "$ENGINE_DIR" "$(dirname -- "$ENGINE_SOCKET")"
  rm -f "$PIDFILE"
  forget_dead_containerd

  local iptables flags=()
  iptables=$(pick_iptables)
  # A record that is still here dates from before an engine that was killed: keep it.
  if socket_is_default && [[ ! -f $BEFORE ]]; then record_network "$iptables"; fi
  case $iptables in
    iptables) ;;
    '')
      warn "no iptables works on this kernel: containers have a network and published ports, but no way out"
      flags+=(--iptables=false --ip-masq=false)
      ;;
    *)
      # The engine looks up the name "iptables"; switching Debian's alternative would change it
      # for the whole machine.
      mkdir -p "$ENGINE_DIR/bin"
      printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v "$iptables")" >"$ENGINE_DIR/bin/iptables"
      chmod +x "$ENGINE_DIR/bin/iptables"
      PATH=$ENGINE_DIR/bin:$PATH
      say "this kernel wants $iptables"
      ;;
  esac

  # A data root of our own: what development and tests make never mixes with the images and
  # containers of an engine that this machine may run at other times.
  : >"$LOG"
  local launched
  launch --host "unix://$ENGINE_SOCKET" --pidfile "$PIDFILE" --exec-root "$EXEC_ROOT" \
    --data-root "$ENGINE_DIR/data" ${flags[@]+"${flags[@]}"}
  wait_until 60 answers_or_dead "$launched" || true
  answers && return
  tail -n 30 "$LOG" >&2
  local pid
  if pid=$(own_pid); then end_process "$pid" "$EXEC_ROOT" 15; fi
  restore_network
  die "the engine did not come up on $ENGINE_SOCKET; its whole log is $LOG"
}

stop_locked() {
  local pid mount
  if ! own_pid >/dev/null && [[ -d $EXEC_ROOT ]] && ! answers; then
    # It was killed, and its containers live on. An engine knows best how to tidy up after one.
    say "the engine was killed; starting it once more to end its containers"
    start_locked
  fi
  if pid=$(own_pid); then
    # The engine gives its containers 10 s, all at once, then needs a moment itself.
    end_process "$pid" "$EXEC_ROOT" 45
    say "stopped the engine (pid $pid)"
  fi
  restore_network
  for mount in "$EXEC_ROOT"/netns/*; do
    if [[ -e $mount ]]; then umount "$mount" 2>/dev/null || true; fi
  done
  # A killed engine leaves its data mounted on itself, and the next one does not take that away.
  umount "$ENGINE_DIR/data" 2>/dev/null || true
  rm -f "$PIDFILE"
  rm -rf "$EXEC_ROOT"
}

stop() {
  if [[ ! -e $PIDFILE && ! -e $BEFORE && ! -d $EXEC_ROOT ]]; then
    say "this run directory started no engine; nothing to stop"
    return
  fi
  need_root
  lock
  stop_locked
}

status() {
  local pid
  if ! answers; then
    echo "nothing answers on $ENGINE_SOCKET"
    return 3
  fi
  if pid=$(own_pid); then
    echo "running on $ENGINE_SOCKET, started from $RUN_DIR (pid $pid, log $LOG)"
  else
    echo "running on $ENGINE_SOCKET, not started from $RUN_DIR"
  fi
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  status) status ;;
  env)
    printf 'export DOCKER_HOST=%q\n' "unix://$ENGINE_SOCKET"
    printf 'export PLIMSOLL_ENGINE=%q\n' "unix://$ENGINE_SOCKET"
    printf 'export PLIMSOLL_ENGINE_SOCKET=%q\n' "$ENGINE_SOCKET"
    ;;
  *)
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
