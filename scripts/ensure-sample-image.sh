#!/bin/sh
# Makes the sample image available on this machine's engine: pulled, or, where it cannot be pulled,
# a stand-in of the same name made from busybox.
set -eu

image=spaster/alpine-sleep
pull_timeout_s=30

docker image inspect "$image" >/dev/null 2>&1 && exit 0
echo "pulling $image" >&2
if ! timeout "$pull_timeout_s" docker pull -q "$image" >/dev/null 2>&1; then
    echo "$image cannot be pulled here: building a stand-in of that name from busybox" >&2
    "$(dirname "$0")/build-sample-image.sh" "$image"
fi
