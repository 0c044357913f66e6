#!/bin/sh
# Lays out the root folder of an image: programs, the shared libraries they need, and a busybox for
# sh, wget and the like. The Dockerfile makes the final image of it, and the smoke tests their
# stand-ins for images that cannot be pulled.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 ROOT PROGRAM..." >&2
    exit 2
fi
root=$1
shift

busybox=/bin/busybox
if [ ! -x "$busybox" ] || ldd "$busybox" >/dev/null 2>&1; then
    echo "$0: a static $busybox is needed: install the package busybox-static" >&2
    exit 1
fi

mkdir -p "$root/bin" "$root/usr/local/bin" "$root/etc" "$root/tmp" "$root/data"
chmod 755 "$root"
chmod 1777 "$root/tmp" "$root/data"

cp -L "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
done

for program in "$@"; do
    cp -L "$program" "$root/usr/local/bin/"
    # Two kinds of lines name a file: `name => /path (address)`, and the loader's `/path (address)`.
    for library in $(ldd "$program" | sed -n 's|^[^/]*\(/[^ ]*\) (0x[0-9a-f]*)$|\1|p'); do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done

printf 'root:x:0:0:root:/:/bin/sh\nkubeleet:x:65532:65532:kubeleet:/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nkubeleet:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

# What a rediss:// server is checked against.
if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
    mkdir -p "$root/etc/ssl/certs"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
fi
