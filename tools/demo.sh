#!/usr/bin/env bash
# Start `vectron dev`, load the 20,000 words of data/words through the public API, search three of
# them and print what is near. With --serve it goes on until Ctrl-C; without, it works in a temporary
# folder on free ports and ends.
set -euo pipefail
cd "$(dirname "$0")/.."

serve=false
[ "${1:-}" != --serve ] || serve=true

if $serve; then
    data=${VECTRON_DATA_DIR:-./vectron-data}
    ports=()
else
    data=$(mktemp -d)
    ports=(--http-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0
        --auth-http-addr 127.0.0.1:0 --auth-grpc-addr 127.0.0.1:0)
fi
mkdir -p "$data"
log=$data/demo.log
: >"$log"

vectron=
cleanup() {
    if [ -n "$vectron" ]; then
        kill "$vectron" 2>/dev/null || :
        wait "$vectron" || :
    fi
    $serve || rm -rf "$data"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

bin/vectron dev --data-dir "$data" "${ports[@]}" >"$log" &
vectron=$!
for _ in $(seq 600); do
    ready=$(grep -m 1 '^vectron ready' "$log" || :)
    [ -z "$ready" ] || break
    kill -0 "$vectron" 2>/dev/null || {
        echo "vectron dev did not start" >&2
        exit 1
    }
    sleep 0.05
done
[ -n "$ready" ] || {
    echo "vectron dev was not ready within 30 s" >&2
    exit 1
}
address() { # name: its HOST:PORT in the ready line
    tr ' ' '\n' <<<"$ready" | sed -n "s/^$1=//p"
}
VECTRON_ADDR=$(address grpc)
VECTRON_AUTH_ADDR=$(address auth-grpc)
VECTRON_TOKEN=$(cat "$data/sdk-token")
export VECTRON_ADDR VECTRON_AUTH_ADDR VECTRON_TOKEN
http=$(address http)

# The ready line does not wait for the services to have found each other.
for _ in $(seq 100); do
    curl -fsS "http://$http/readyz" >/dev/null 2>&1 && break
    sleep 0.05
done

if ! bin/vectron collections list | grep -qx words; then
    bin/vectron collections create words --dimension 100 --distance cosine
    bin/vectron points upsert words --npy data/words/words.npy --ids data/words/words.txt
fi
for word in king paris music; do
    printf '\nnearest to "%s":\n' "$word"
    bin/vectron search words --id "$word" --top-k 10
done

if $serve; then
    sed -n '/^admin login/p' "$log"
    cat <<END

Vectron serves http://$http (HTTP/JSON) and $VECTRON_ADDR (gRPC). Go on with:

    export VECTRON_TOKEN=\$(cat $data/sdk-token)
    curl -s http://$http/v1/collections -H "authorization: Bearer \$VECTRON_TOKEN"
    curl -s http://$http/v1/collections/words/points/king -H "authorization: Bearer \$VECTRON_TOKEN"
    curl -s http://$http/v1/collections -H "authorization: Bearer \$VECTRON_TOKEN" \\
        -d '{"name": "mine", "dimension": 3, "distance": "cosine"}'
    curl -s http://$http/v1/collections/mine/points -H "authorization: Bearer \$VECTRON_TOKEN" \\
        -d '{"points": [{"id": "a", "vector": [1, 0, 0], "payload": {"colour": "red"}}]}'
    curl -s http://$http/v1/collections/mine/points/search -H "authorization: Bearer \$VECTRON_TOKEN" \\
        -d '{"vector": [1, 0.1, 0], "top_k": 3}'

Ctrl-C ends it; the data stays in $data.
END
    wait "$vectron"
fi
