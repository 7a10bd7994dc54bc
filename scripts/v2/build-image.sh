#!/usr/bin/env bash
# Builds the Debian guest that scripts/test-v2.sh boots: systemd, Docker and a
# kernel with cgroup v2, as one directory holding `root.ext4`, `vmlinuz`,
# `initrd.img` and `glibc` (the version of the guest's C library).
#
#   build-image.sh DIR
#
# DIR must not exist; it appears only when everything in it is complete. The
# whole recipe is this file and the unit beside it: test-v2.sh keys its cache
# by their hash, so nothing else may shape the image.

set -euo pipefail

readonly SUITE=bookworm
# 3 GiB is address space, not disk: the file is sparse and holds about 0.6 GiB.
readonly IMAGE_SIZE=3G
readonly PACKAGES=(
  systemd systemd-sysv dbus udev kmod procps linux-image-cloud-amd64
  docker.io iproute2 iptables
  busybox-static e2fsprogs quota curl jq sudo
)
# What a guest that lives for two minutes never needs. Emulation makes each of
# them cost seconds, and a timer that fires in the middle would disturb checks.
readonly MASKED_UNITS=(
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
  e2scrub_all.timer e2scrub_reap.service fstrim.timer
  systemd-tmpfiles-clean.timer
  getty@tty1.service serial-getty@ttyS0.service getty-static.service
  console-getty.service
  systemd-networkd.service systemd-networkd-wait-online.service
  systemd-timesyncd.service systemd-hwdb-update.service systemd-logind.service
  systemd-journal-flush.service systemd-pstore.service
  systemd-random-seed.service systemd-update-utmp.service
  systemd-update-utmp-runlevel.service
  quota.service quotaon.service quotarpc.service
)

die() {
  printf 'build-image: %s\n' "$*" >&2
  exit 1
}

[[ $# -eq 1 ]] || die "usage: build-image.sh DIR"
readonly target=$1
[[ ! -e $target ]] || die "$target is already there"
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly here

mkdir -p -- "$(dirname -- "$target")"
work=$(mktemp -d -- "$target.partial.XXXXXX")
trap 'rm -rf --one-file-system -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
readonly root=$work/root
mkdir "$work/out"

# The mirror is whatever this machine's apt uses for Debian, so the build works
# behind a proxy, a local mirror or a snapshot, in either format of sources.
sources() {
  # shellcheck disable=SC2016 # apt expands these fields, not the shell
  apt-get indextargets --format '$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' \
    'Created-By: Packages' |
    awk -F'|' -v suite="$SUITE" '
      $1 == "Debian" && ($2 == suite || $2 ~ "^" suite "-(security|updates)$") && $5 == "main" {
        print "deb", $3, $4, $5
      }' | sort -u
}
sources >"$work/sources.list"
grep -q " $SUITE main$" "$work/sources.list" ||
  die "apt knows no Debian $SUITE 'main' archive here; add one to its sources and run apt-get update"

# How this machine reaches the mirror (proxies, certificates, clock checks) has
# to hold for the apt that fills the guest as well.
apt-config dump |
  grep -E '^Acquire::(https?|Check-Valid-Until|Check-Date|Retries)\b.* ".+";$' \
    >"$work/apt.conf" || true

# initramfs-tools runs while packages are configured, so its settings must be
# there first: only the modules that find the root disk. The full set would be
# tens of MiB to unpack at emulated speed.
# shellcheck disable=SC2016 # mmdebstrap's shell has the guest's root in $1
readonly INITRAMFS_HOOK='
  mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
  printf "MODULES=list\nCOMPRESS=gzip\n" >"$1/etc/initramfs-tools/conf.d/plimsoll"
  printf "%s\n" virtio_pci virtio_blk ext4 >"$1/usr/share/initramfs-tools/modules.d/plimsoll"'

# No fsync (the image is thrown away if the machine dies), no manuals.
include=$(IFS=,; printf '%s' "${PACKAGES[*]}")
mmdebstrap --mode=root --variant=minbase --quiet --format=directory \
  --include="$include" \
  --aptopt="$work/apt.conf" \
  --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --essential-hook="$INITRAMFS_HOOK" \
  "$SUITE" "$root" "$work/sources.list"

# A fixed id: an empty one means "first boot", which systemd spends on presets.
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo v2-guest >"$root/etc/hostname"
printf '127.0.0.1 localhost v2-guest\n' >"$root/etc/hosts"
cat >"$root/etc/fstab" <<'FSTAB'
/dev/vda / ext4 defaults,noatime 0 0
LABEL=plimsoll-in /mnt/in ext4 ro,nofail,x-systemd.device-timeout=120s 0 0
FSTAB
mkdir -p "$root/mnt/in" "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system.conf.d"
# Warnings of units reach the console: all that is left to read of a guest
# that never came to its verdict.
cat >"$root/etc/systemd/journald.conf.d/plimsoll.conf" <<'CONF'
[Journal]
Storage=volatile
ForwardToConsole=yes
MaxLevelConsole=warning
CONF
# On one emulated core 90 s is not a long start.
cat >"$root/etc/systemd/system.conf.d/plimsoll.conf" <<'CONF'
[Manager]
DefaultTimeoutStartSec=300s
DefaultDeviceTimeoutSec=300s
CONF
for unit in "${MASKED_UNITS[@]}"; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
install -m 0644 "$here/plimsoll-guest-test.service" "$root/etc/systemd/system/"
ln -s ../plimsoll-guest-test.service \
  "$root/etc/systemd/system/multi-user.target.wants/plimsoll-guest-test.service"

# QEMU boots the kernel itself, so the disk needs neither a boot loader nor a
# second copy.
mv "$root"/boot/vmlinuz-* "$work/out/vmlinuz"
mv "$root"/boot/initrd.img-* "$work/out/initrd.img"
rm -rf "$root"/{boot/config-,boot/System.map-,vmlinuz,initrd.img}* \
  "$root"/var/{cache/apt,lib/apt/lists}
# shellcheck disable=SC2016 # dpkg-query's field, not the shell's
dpkg-query --root="$root" -W -f '${Version}\n' libc6:amd64 | sed 's/-.*//' >"$work/out/glibc"

# Every run works on a throw-away snapshot, so a journal would only cost time;
# inode tables are written now, not by a kernel thread while the guest boots.
truncate -s "$IMAGE_SIZE" "$work/out/root.ext4"
mke2fs -q -F -t ext4 -O '^has_journal' -E lazy_itable_init=0,nodiscard -N 131072 \
  -L plimsoll-root -d "$root" "$work/out/root.ext4"

mv -T -- "$work/out" "$target"
