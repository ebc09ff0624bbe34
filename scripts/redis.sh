#!/usr/bin/env bash
# Runs a Valkey or Redis server in the foreground, on loopback only. Ctrl-C or SIGTERM ends it.
#
#   scripts/redis.sh PORT FOLDER [OPTION...]              a cache of states: it forgets what was used least recently
#   scripts/redis.sh --durable PORT FOLDER [OPTION...]    a journal of events: it answers when they are on disk
#
# FOLDER holds the server's own files; an OPTION is one of the server, such as --maxmemory 1gb. The program is found by
# scripts/packages.sh.
set -euo pipefail

# A cache saves nothing; a journal must not lose anything, so a full one refuses.
settings=(--appendonly no --maxmemory 1gb --maxmemory-policy allkeys-lru)
if [ "${1:-}" = --durable ]; then
    settings=(--appendonly yes --appendfsync always --maxmemory-policy noeviction)
    shift
fi
[ $# -ge 2 ] || { echo "usage: $0 [--durable] PORT FOLDER [OPTION...]" >&2; exit 2; }
port=$1 folder=$2
shift 2
. "$(dirname "$0")/packages.sh"
find_program redis valkey-server:valkey-server redis-server:redis-server
mkdir -p "$folder"
exec "$program" --port "$port" --bind 127.0.0.1 --dir "$folder" --save "" "${settings[@]}" "$@"
