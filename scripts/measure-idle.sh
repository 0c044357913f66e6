#!/bin/sh
# Resident memory and cpu of an idle agent and of a whole idle `leet dev`, over SECONDS (30).
# Needs release binaries (make build), redis-server and a Docker engine.
set -eu
seconds=${SECONDS_TO_MEASURE:-30}
target=${CARGO_TARGET_DIR:-target}/release
work=$(mktemp -d)
port=$((20000 + $$ % 20000))
trap 'kill $agent $dev $redis 2>/dev/null || true; rm -rf "$work"' EXIT
agent='' dev=''

redis-server --port "$port" --bind 127.0.0.1 --save '' --dir "$work" >/dev/null &
redis=$!

# Clock ticks a process has used, from /proc/PID/stat: fields 14 and 15, counted behind the name.
ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

measure() {
    before=$(ticks "$2")
    sleep "$seconds"
    after=$(ticks "$2")
    resident=$(awk '/^VmRSS/ { print $2 }' "/proc/$2/status")
    awk -v name="$1" -v kib="$resident" -v used=$((after - before)) -v hz="$(getconf CLK_TCK)" \
        -v seconds="$seconds" \
        'BEGIN { printf "%-12s %6.1f MiB resident  %5.2f %% of a core\n", name, kib / 1024, used / hz / seconds * 100 }'
}

KUBELEET_REDIS__URL=redis://127.0.0.1:$port KUBELEET_NODE__NAME=idle-node "$target/kubeleet" 2>"$work/agent.log" &
agent=$!
"$target/leet" dev --nodes 1 --listen 127.0.0.1:0 >"$work/ready" 2>"$work/dev.log" &
dev=$!
until grep -q 'kubeleet is ready' "$work/ready" && grep -q 'agent is ready' "$work/agent.log"; do
    kill -0 "$agent" && kill -0 "$dev" # ends the script if either is gone
    sleep 0.2
done
sleep 5 # the first comparisons are over
measure 'agent' "$agent"
measure 'leet dev' "$dev"
