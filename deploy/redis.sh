#!/bin/sh
# Starts one Redis server or one Sentinel in a container of compose.yaml:
#
#     redis.sh master                the server that begins as the master
#     redis.sh replica ADDRESS       one that begins as a replica of it
#     redis.sh sentinel ADDRESS      a Sentinel that begins with it
#
# Sentinel writes to the configuration of every server it looks after, its own included, so each
# works on a copy in /data. A server takes its settings anew from the shared file at each start, and
# only its role from the copy: whoever was made a replica must not come back as a master.
set -eu

role=$1
master=${2:-}
settings=/etc/kubeleet-redis # the repository's redis/ folder
restart_delay_s=15           # several times what sentinel.conf gives a silent server

# For containers of this network only: no port of theirs is published.
reachable="bind 0.0.0.0
protected-mode no
dir /data"

# What redis.conf leaves to the site: a master that nobody follows takes no writes.
one_of_three="min-replicas-to-write 1
min-replicas-max-lag 3"

case $role in
master | replica)
    copy=/data/redis.conf
    follows=
    if [ -f "$copy" ]; then
        follows=$(grep '^replicaof ' "$copy" | tail -n 1) || true
        # A master that is back too soon, perhaps with less data, would stay the master.
        echo "started before: waits $restart_delay_s s, so that Sentinel decides who is master"
        sleep "$restart_delay_s"
    elif [ "$role" = replica ]; then
        follows="replicaof $master 6379"
    fi
    printf '%s\n' "$(cat "$settings/redis.conf")" "$reachable" "$one_of_three" "$follows" >"$copy.new"
    mv "$copy.new" "$copy"
    set -- redis-server "$copy"
    ;;
sentinel)
    copy=/data/sentinel.conf
    if [ ! -f "$copy" ]; then
        sed "s/^sentinel monitor kubeleet .*/sentinel monitor kubeleet $master 6379 2/" \
            "$settings/sentinel.conf" >"$copy.new"
        printf '%s\n' "$reachable" >>"$copy.new"
        mv "$copy.new" "$copy"
    fi
    set -- redis-server "$copy" --sentinel
    ;;
*)
    echo "usage: $0 master | replica ADDRESS | sentinel ADDRESS" >&2
    exit 2
    ;;
esac

# The official image's entry point gives /data to the user redis and becomes that user.
if command -v docker-entrypoint.sh >/dev/null 2>&1; then
    exec docker-entrypoint.sh "$@"
fi
exec "$@"
