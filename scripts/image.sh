#!/usr/bin/env bash
# Makes plimsoll/example, a few megabytes of static busybox, so that nothing here needs a registry.
# Does nothing when the engine already has one made from this busybox by this script.

# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

need_image_packages

busybox=$(readlink -f /bin/busybox)
# A dynamic busybox (the plain package) cannot run alone in an image.
if ! busybox_file=$(ldd "$busybox" 2>&1) && [[ $busybox_file == *'not a dynamic executable'* ]]; then
  :
else
  die "$busybox is not static; install busybox-static in its place: apt-get install busybox-static"
fi

# Of everything the image depends on: the binary and this recipe.
want=$(cat -- "$busybox" "${BASH_SOURCE[0]}" | sha256sum | cut -c1-16)
got=$(docker_ image inspect --format '{{index .Config.Labels "plimsoll.recipe"}}' "$EXAMPLE_IMAGE" 2>/dev/null || true)
if [[ $got == "$want" ]]; then
  say "$EXAMPLE_IMAGE is up to date"
  exit 0
fi

root=$(mktemp -d)
trap 'rm -rf -- "$root"' EXIT
mkdir -p "$root"/{bin,dev,etc,home,proc,root,sys,tmp,usr/bin,var/tmp}
chmod 0755 "$root"
chmod 0700 "$root/root"
chmod 1777 "$root/tmp" "$root/var/tmp"
cp -- "$busybox" "$root/bin/busybox"
chmod 0755 "$root/bin/busybox"
while IFS= read -r applet; do
  [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
done < <("$busybox" --list)
ln -s ../../bin/env "$root/usr/bin/env"
cat >"$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/tmp:/bin/sh
PASSWD
cat >"$root/etc/group" <<'GROUP'
root:x:0:
nobody:x:65534:
GROUP

# Sorted, with fixed owner and time: the same busybox gives the same layer.
tar --directory "$root" --create --sort=name --numeric-owner --owner=0 --group=0 --mtime=@0 . |
  docker_ import \
    --change 'CMD ["sh"]' \
    --change 'ENV PATH=/usr/bin:/bin' \
    --change "LABEL plimsoll.recipe=$want" \
    - "$EXAMPLE_IMAGE" >/dev/null
say "made $EXAMPLE_IMAGE"
