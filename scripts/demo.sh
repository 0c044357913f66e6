#!/usr/bin/env bash
# A whole cluster on this machine, with the sample service in it: what `make demo` runs.
#
#     scripts/demo.sh           stays until Ctrl-C
#     ONCE=1 scripts/demo.sh    shows the same, tears down, and exits 0 if all went well
#     LISTEN=127.0.0.1:9000     where the API listens, if not on 127.0.0.1:8080
set -euo pipefail
cd "$(dirname "$0")/.."

replicas=3            # as in sample/sleep.json
ready_timeout_s=60    # a private Redis and three nodes
running_timeout_s=60  # three small containers
stop_timeout_s=30     # the containers' own grace included
listen=${LISTEN:-127.0.0.1:8080}

scripts/setup.sh demo
scripts/ensure-docker.sh
scripts/ensure-sample-image.sh
# The cluster must use the engine that `docker` speaks to here.
endpoint=$(docker context inspect --format '{{.Endpoints.docker.Host}}')
case $endpoint in
unix://*) export KUBELEET_NODE__DOCKER_SOCKET=${endpoint#unix://} ;;
*)
    echo "demo: docker speaks to $endpoint, but an agent only to a socket of this machine" >&2
    exit 1
    ;;
esac
cargo build --release --locked
leet=${CARGO_TARGET_DIR:-target}/release/leet

work=$(mktemp -d)
out=$work/out
log=$work/log
cluster=    # process id of the cluster
shown=      # ids of the containers that were shown
outcome=1

# Ends the cluster and waits for it: it removes its containers and its Redis itself.
# shellcheck disable=SC2317 # called by the traps below
tear_down() {
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$cluster" ]; then
        kill -TERM "$cluster" 2>/dev/null || true
        for ((i = 0; i < stop_timeout_s * 10; i++)); do
            kill -0 "$cluster" 2>/dev/null || break
            sleep 0.1
        done
        if kill -0 "$cluster" 2>/dev/null; then
            echo "demo: the cluster did not end within $stop_timeout_s s" >&2
            kill -KILL "$cluster"
            outcome=1
        fi
        wait "$cluster" || {
            echo "demo: the cluster ended with $?" >&2
            outcome=1
        }
    fi
    for id in $shown; do
        if docker inspect "$id" >/dev/null 2>&1; then
            echo "demo: container $id was left, and is removed now" >&2
            docker rm -f "$id" >/dev/null || true
            outcome=1
        fi
    done
    if [ "$outcome" = 1 ]; then
        echo "demo: failed; the end of the log:" >&2
        tail -n 30 "$log" >&2 || true
    fi
    rm -rf "$work"
    exit "$outcome"
}
touch "$log"
trap tear_down EXIT
trap '[ "$outcome" = 0 ] || outcome=130; tear_down' INT TERM HUP

fail() {
    echo "demo: $*" >&2
    exit 1
}

# Shows a command as it would be typed, and runs it.
show() {
    echo
    printf '$'
    printf ' %s' "$@"
    echo
    "$@"
}

# In a process group of its own, so that Ctrl-C reaches this script alone, which ends it in order.
set -m
"$leet" dev --nodes 3 --listen "$listen" >"$out" 2>"$log" &
cluster=$!
set +m

for ((i = 0; i < ready_timeout_s * 10; i++)); do
    grep -q '^kubeleet is ready: ' "$out" && break
    kill -0 "$cluster" 2>/dev/null || fail "the cluster did not come up"
    sleep 0.1
done
grep '^kubeleet is ready: ' "$out" || fail "the cluster was not ready after $ready_timeout_s s"
api=$(sed -n 's/^kubeleet is ready: api=\([^ ]*\).*/\1/p' "$out")
leet() {
    "$leet" --api "$api" "$@"
}

show curl -sS --fail-with-body -X POST "$api/service" -H 'Content-Type: application/json' -d @sample/sleep.json
echo

running=0
for ((i = 0; i < running_timeout_s * 5; i++)); do
    running=$(leet ps -o json | grep -c '"phase": *"running"') || true
    [ "$running" = "$replicas" ] && break
    kill -0 "$cluster" 2>/dev/null || fail "the cluster ended by itself"
    sleep 0.2
done
show leet ps
[ "$running" = "$replicas" ] || fail "$running of $replicas are running after $running_timeout_s s"
show leet nodes
show docker ps --filter label=orchestrator=kubeleet
shown=$(docker ps -q --filter label=orchestrator=kubeleet --filter label=kubeleet.name=sleep)
[ "$(wc -w <<<"$shown")" -ge "$replicas" ] || fail "the engine runs fewer: $shown"

outcome=0
[ -z "${ONCE:-}" ] || exit 0

cat <<END

It runs. In another terminal:

    export KUBELEET_API=$api
    $leet run spaster/alpine-sleep --name more --replicas 5
    $leet ps
    $leet scale sleep 6
    $leet rm sleep

Ctrl-C ends it and removes its containers.
END
wait "$cluster" || true
outcome=1
fail "the cluster ended by itself"
