#!/bin/sh
# Installs what building, testing and the demo need and this machine lacks, with Debian's or
# Ubuntu's packages. Says what it does; run again, it does nothing.
#
#     scripts/setup.sh demo     what `make demo` needs
#     scripts/setup.sh test     what `make test` needs on top: compose, a registry, stress, certificates, networks, Python
set -eu

say() {
    echo "setup: $*" >&2
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        say "asks sudo for: $*"
        sudo "$@"
    else
        say "neither root nor sudo is at hand, which this needs: $*"
        exit 1
    fi
}

# Debian keeps some programs where only root looks.
PATH="$PATH:/usr/sbin:/sbin"
packages=
need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}

redis=kept
if ! command -v redis-server >/dev/null 2>&1 && ! command -v valkey-server >/dev/null 2>&1; then
    redis=installed
    packages="$packages redis-server"
fi
need curl curl
need cc gcc
# A command named docker may be the client alone; it is enough where an engine answers.
engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) || engine=
[ -n "$engine" ] || need dockerd docker.io
need docker docker.io
# The stand-in for images that cannot be pulled needs a static one.
if [ ! -x /bin/busybox ] || ldd /bin/busybox >/dev/null 2>&1; then
    packages="$packages busybox-static"
fi
if [ "${1:-demo}" = test ]; then
    # The tests also take a set of Redis and Sentinel apart, which needs the real ones.
    command -v redis-server >/dev/null 2>&1 || [ "$redis" = installed ] || packages="$packages redis-server"
    need redis-cli redis-tools
    need openssl openssl
    need ip iproute2 # the fault suite's hosts are network namespaces, broken by
    need iptables iptables
    need nsenter util-linux
    need docker-registry docker-registry # real pulls, on loopback
    need stress-ng stress-ng             # real pressure
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv" # schemathesis
    docker compose version >/dev/null 2>&1 || need docker-compose docker-compose
fi
if ! command -v cargo >/dev/null 2>&1; then
    say "cargo is missing: install Rust 1.95 or later first"
    exit 1
fi

[ -n "$packages" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    say "there is no apt here, install these yourself:$packages"
    exit 1
fi
say "installs by apt:$packages"
# Retried, as a mirror may be away for a moment.
as_root apt-get update -q -o Acquire::Retries=3 >&2
# shellcheck disable=SC2086 # a list of packages
as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qy --no-install-recommends -o Acquire::Retries=3 $packages >&2

# kubeleet starts a Redis of its own; the one that the package started would only take port 6379.
if [ "$redis" = installed ]; then
    say "stops the redis-server service that the package started"
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now redis-server >&2 || true
    else
        as_root service redis-server stop >&2 || true
        as_root update-rc.d redis-server disable >&2 || true
    fi
fi
