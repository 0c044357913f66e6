#!/bin/sh
# Generates requests from the OpenAPI document, sound and broken ones, and judges every answer of a
# real API with scheduler and simulated nodes: nothing of 500 and above, nothing accepted that the
# document forbids, nothing answered that it does not describe.
#
#     scripts/schemathesis.sh [SECONDS] [more arguments of `st run`]
set -eu
cd "$(dirname "$0")/.."

version=4.32.5
seconds=${1:-45}
[ $# -eq 0 ] || shift
venv=target/schemathesis
if ! "$venv/bin/st" --version 2>/dev/null | grep -q "$version"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi

cargo build --locked --quiet --bin leet
work=$(mktemp -d)
leet=
end() {
    [ -z "$leet" ] || { kill "$leet" && wait "$leet"; } 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT INT TERM
KUBELEET_LOG__FILTER=warn target/debug/leet dev --nodes 3 --runtime simulated --listen 127.0.0.1:0 \
    >"$work/ready" 2>"$work/log" &
leet=$!
tries=0
until grep -q "kubeleet is ready" "$work/ready"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ] || ! kill -0 "$leet" 2>/dev/null; then
        cat "$work/log" >&2
        exit 1
    fi
    sleep 0.1
done
api=$(sed -n 's/.*api=\(http:[^ ]*\).*/\1/p' "$work/ready")

# What stands already, so that sound requests find something.
for name in web shop; do
    curl -sSf -o "$work/answer" -H 'content-type: application/json' "$api/v1/services" \
        -d "{\"name\":\"$name\",\"image\":\"spaster/alpine-sleep\",\"replicas\":2}"
done

status=0
"$venv/bin/st" --config-file scripts/schemathesis.toml run "$api/openapi.json" --url "$api" \
    --max-time "$seconds" "$@" || status=$?
# It must still serve, and must not have panicked.
curl -sSf "$api/readyz" >"$work/answer" || status=1
if grep -E "panic|stack overflow" "$work/log" >&2; then
    status=1
fi
exit "$status"
