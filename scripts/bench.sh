#!/usr/bin/env bash
# make bench: measures what docs/benchmarks.md shows and writes the table there, with the machine
# named. Every program runs BENCH_ROUNDS times (3), one after the other; the table has each
# figure's median and its spread. Nothing here fails because a figure is slow: machines differ.

# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

ROUNDS=${BENCH_ROUNDS:-3}
PAGE=$REPO/docs/benchmarks.md
RESULTS=$RUN_DIR/bench.jsonl


need_root
need_engine_packages
need_build_packages
mkdir -p "$RUN_DIR"
cd "$REPO"
end_with end_engine

enter_engine

say "building (release profile)"
cargo build --locked --release --package plimsoll --bin plimsoll
cargo build --locked --release --workspace --examples
target=$(cargo metadata --locked --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
release=$target/release

# The ledger's figures are those of this folder's disk, not of a temporary file system.
disk=$(mktemp -d "$RUN_DIR/bench.XXXXXX")

# The load before our own.
load=$(cut -d' ' -f1 /proc/loadavg)
: >"$RESULTS"
for ((round = 1; round <= ROUNDS; round++)); do
  say "round $round of $ROUNDS"
  {
    "$release/examples/ledger_bench" "$disk"
    for connections in 1 8 64; do
      TMPDIR=$disk "$release/examples/validate_bench" "$connections" 3
    done
    for cgroups in 100 1000; do
      "$release/examples/collector_bench" "$cgroups" 20
    done
    "$release/examples/history_bench" "$disk"
    TMPDIR=$disk "$release/examples/server_bench" "$release/plimsoll"
    TMPDIR=$disk "$release/examples/gateway_bench" "$release/plimsoll"
  } >>"$RESULTS"
done
rmdir "$disk"

# name, n, unit, median, least, most; in the order in which they were printed.
summary() {
  sed 's/^{"name":"\(.*\)","n":\(.*\),"value":\(.*\),"unit":"\(.*\)"}$/\1|\2|\4|\3/' "$RESULTS" |
    awk -F'|' '
      { key = $1 "|" $2 "|" $3 }
      !(key in count) { order[++keys] = key }
      { value[key, ++count[key]] = $4 + 0 }
      # Three figures that mean something, whatever the size.
      function show(x) { return x >= 100 ? sprintf("%.0f", x) : x >= 10 ? sprintf("%.1f", x) : sprintf("%.2f", x) }
      END {
        for (i = 1; i <= keys; i++) {
          key = order[i]; n = count[key]
          for (a = 1; a <= n; a++) v[a] = value[key, a]
          for (a = 2; a <= n; a++) for (b = a; b > 1 && v[b] < v[b - 1]; b--) { t = v[b]; v[b] = v[b - 1]; v[b - 1] = t }
          print key "|" show(v[int((n + 1) / 2)]) "|" show(v[1]) "|" show(v[n])
        }
      }'
}

table() {
  local cpu memory
  cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
  memory=$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)
  printf 'Measured %s on %s x %s, %s GiB, Linux %s, Docker Engine %s; load before the start %s; %s rounds.\n\n' \
    "$(date -u +%Y-%m-%d)" "$(nproc)" "${cpu:-an unnamed processor}" "$memory" "$(uname -r)" \
    "$(docker_ version --format '{{.Server.Version}}')" "$load" "$ROUNDS"
  printf '| what | n | median | least | most | unit |\n|---|--:|--:|--:|--:|---|\n'
  summary | awk -F'|' '{ printf "| %s | %s | %s | %s | %s | %s |\n", $1, $2, $4, $5, $6, $3 }'
}

table >"$RUN_DIR/bench.md"
awk -v table="$RUN_DIR/bench.md" '
  /<!-- end of the table -->/ { inside = 0 }
  !inside { print }
  /<!-- the table, written by make bench -->/ { inside = 1; while ((getline line < table) > 0) print line }
' "$PAGE" >"$RUN_DIR/benchmarks.md"
cp "$RUN_DIR/benchmarks.md" "$PAGE"
cat "$RUN_DIR/bench.md"
say "written to ${PAGE#"$REPO"/}"
