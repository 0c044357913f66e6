#!/bin/sh
# Builds a tiny image from nothing but a static busybox, under each given name.
# It sleeps for ever by default. No registry is asked; says nothing when the image already exists.
set -eu

if [ $# -eq 0 ]; then
    echo "usage: $0 NAME..." >&2
    exit 2
fi

busybox=/bin/busybox
if [ ! -x "$busybox" ]; then
    echo "$0: $busybox is missing: install the package busybox-static, or run scripts/ensure-docker.sh" >&2
    exit 1
fi

missing=
for name in "$@"; do
    docker image inspect "$name" >/dev/null 2>&1 || missing="$missing $name"
done
[ -n "$missing" ] || exit 0

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/etc" "$root/tmp"
chmod 755 "$root"
chmod 1777 "$root/tmp"
cp -L "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"

# `docker import` needs no builder, which slim installations lack.
for name in $missing; do
    tar -C "$root" --owner=0 --group=0 --numeric-owner -cf - . |
        docker import --change 'ENV PATH=/bin' --change 'CMD ["sleep", "2147483647"]' - "$name" >/dev/null
    echo "built $name" >&2
done
