#!/bin/sh
# Makes a Docker engine answer on this machine: installs it by apt where it is missing, starts it
# where none runs, and waits until it answers. Needs no systemd, so it also works inside a small
# VM or a privileged container. Run again, it does nothing.
set -eu

deadline_s=60
log=/tmp/kubeleet-dockerd.log

fail() {
    echo "$0: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        echo "$0: asking sudo for: $*" >&2
        sudo "$@"
    else
        fail "neither root nor sudo is at hand, which this needs: $*"
    fi
}

# `docker info` succeeds with some clients even where no engine answers; its version does not.
answers() {
    [ -n "$(docker version --format '{{.Server.Version}}' 2>/dev/null)" ]
}

packages=
command -v docker >/dev/null 2>&1 || packages=docker.io
command -v busybox >/dev/null 2>&1 || [ -x /bin/busybox ] || packages="$packages busybox-static"
if ! command -v dockerd >/dev/null 2>&1 && [ ! -x /usr/sbin/dockerd ]; then
    # A client alone may speak to an engine elsewhere.
    command -v docker >/dev/null 2>&1 && answers || packages="docker.io $packages"
fi
if [ -n "$packages" ]; then
    command -v apt-get >/dev/null 2>&1 || fail "install these yourself, there is no apt here: $packages"
    as_root apt-get update -q >&2
    # shellcheck disable=SC2086 # a list of packages
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $packages >&2
fi

if ! answers; then
    PATH="$PATH:/usr/sbin:/sbin"
    if [ "$(id -u)" != 0 ] && [ -S /var/run/docker.sock ] && as_root docker version >/dev/null 2>&1; then
        fail "an engine runs, but $(id -un) may not speak to it: add the user to the group docker"
    fi
    # Machines without systemd may have mounted no cgroups at all; one hierarchy is enough.
    if ! grep -q cgroup /proc/mounts; then
        as_root mkdir -p /sys/fs/cgroup
        as_root mount -t cgroup2 none /sys/fs/cgroup || fail "no cgroups are mounted, and none can be"
    fi
    # A pid file left by a machine that was cut off would keep the engine from starting.
    if [ -f /var/run/docker.pid ] && ! kill -0 "$(cat /var/run/docker.pid)" 2>/dev/null; then
        as_root rm -f /var/run/docker.pid
    fi
    echo "$0: starting dockerd, its log is $log" >&2
    as_root sh -c "setsid dockerd >'$log' 2>&1 </dev/null &"
    waited_s=0
    until answers; do
        if [ "$waited_s" -ge "$deadline_s" ]; then
            tail -n 5 "$log" >&2 || true
            fail "dockerd does not answer after $deadline_s s, see $log"
        fi
        sleep 1
        waited_s=$((waited_s + 1))
    done
fi
