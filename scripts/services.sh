#!/usr/bin/env bash
# Runs two services behind a balancer, on loopback only: nginx with deploy/nginx.conf, `m6rec serve` twice, and a durable
# Valkey or Redis that keeps the events of both. Ctrl-C or SIGTERM ends them all.
#
#   scripts/services.sh PORT FOLDER [SERVE_OPTION...]      scripts/services.sh 8300 runs/services --project shop
#
# nginx listens at PORT, the services at PORT+1 and PORT+2, the server of events at PORT+3. FOLDER holds the events, logs
# and the numbers of the processes (service-1.pid, …). The services run by $PYTHON, by default python3. It prints one line
# when all are ready. A service that ends is not started again here: deploy/m6rec.service lets systemd do that.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 PORT FOLDER [SERVE_OPTION...]" >&2; exit 2; }
port=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
shift 2
here=$(cd "$(dirname "$0")" && pwd)

trap 'trap - TERM; kill $(jobs -p) 2>/dev/null; wait' EXIT
trap 'exit 0' INT TERM

answers() { # URL SECONDS PID: waits until there is an answer, and gives up where the process ends
    local until=$((SECONDS + $2))
    until curl --silent --fail --output /dev/null --max-time 2 "$1"; do
        kill -0 "$3" 2>/dev/null && [ $SECONDS -lt $until ] || { echo "$0: nothing answers at $1; see $folder/*.log" >&2; exit 1; }
        sleep 0.1
    done
}

run() { # NAME COMMAND...: in the background, with a log
    local name=$1
    shift
    "$@" >"$folder/$name.log" 2>&1 &
    echo $! >"$folder/$name.pid"
}

events=redis://127.0.0.1:$((port + 3))/0
run redis "$here/redis.sh" --durable $((port + 3)) "$folder/redis"
until grep -q "Ready to accept connections" "$folder/redis.log"; do
    kill -0 "$(cat "$folder/redis.pid")" || { cat "$folder/redis.log" >&2; exit 1; }
    sleep 0.1
done
for number in 1 2; do
    run service-$number "${PYTHON:-python3}" -m m6rec serve --port $((port + number)) --journal "$events" "$@"
done
for number in 1 2; do
    answers "http://127.0.0.1:$((port + number))/readyz" 600 "$(cat "$folder/service-$number.pid")"
done

run nginx "$here/nginx.sh" "$folder/nginx" "$port" $((port + 1)) $((port + 2))
answers "http://127.0.0.1:$port/readyz" 120 "$(cat "$folder/nginx.pid")"
echo "m6rec: two services answer at http://127.0.0.1:$port"
wait
