#!/usr/bin/env bash
# Runs a Valkey or Redis server in the foreground, on loopback only. Ctrl-C or SIGTERM ends it.
#
#   scripts/redis.sh PORT FOLDER [OPTION...]              a cache of states: it forgets what was used least recently
#   scripts/redis.sh --durable PORT FOLDER [OPTION...]    a journal of events: it answers when they are on disk
#
# FOLDER holds the server's own files; an OPTION is one of the server, such as --maxmemory 1gb. The program is the
# installed one, else Debian's package unpacked into the cache of this user: nothing is installed, root is not needed.
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
cache=${XDG_CACHE_HOME:-$HOME/.cache}/m6rec/redis

program() { command -v valkey-server redis-server "$cache"/root/usr/bin/{valkey,redis}-server | head -n 1; }

unpack() { (
    exec >&2
    command -v apt-get >/dev/null || { echo "$0: install valkey-server or redis-server; it is not here" >&2; exit 1; }
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    [ -z "$(program)" ] || exit 0 # another run was faster
    fresh=$(mktemp -d "$cache/fresh.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    mkdir -p "$fresh"/{lists,archives}/partial
    apt() {
        apt-get -qq -o Debug::NoLocking=1 -o APT::Sandbox::User= -o "Dir::State::lists=$fresh/lists" \
            -o "Dir::Cache=$fresh" "$@"
    }
    apt update
    for package in valkey-server redis-server; do
        apt --yes --download-only --no-install-recommends install "$package" 2>"$fresh/error" && break
    done
    ls "$fresh"/archives/*.deb >/dev/null 2>&1 || { cat "$fresh/error"; exit 1; }
    for archive in "$fresh"/archives/*.deb; do dpkg -x "$archive" "$fresh/root"; done
    mv -T "$fresh/root" "$cache/root"
); }

[ -n "$(program)" ] || unpack
program=$(program)
case $program in
"$cache"/*)
    for library in "$cache"/root/{usr/,}lib/*-linux-gnu*; do
        LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    done
    export LD_LIBRARY_PATH
    ;;
esac
mkdir -p "$folder"
exec "$program" --port "$port" --bind 127.0.0.1 --dir "$folder" --save "" "${settings[@]}" "$@"
