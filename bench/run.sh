#!/usr/bin/env bash
# All measurements, one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."

full=build/words
[ -e "$full/words.npy" ] || /usr/bin/python3 tools/words.py "$full"
for program in build/release/*_bench; do
    case $program in *_driver_bench) continue ;; esac # takes commands: bench/index.py
    printf '\n== %s\n' "$(basename "$program")"
    "$program"
done
printf '\n== server\n'
/usr/bin/python3 bench/server.py --words data/words
/usr/bin/python3 bench/server.py --words "$full" --only search
