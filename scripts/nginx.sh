#!/usr/bin/env bash
# Runs nginx in the foreground as the balancer of two services on this machine, with deploy/nginx.conf.
#
#   scripts/nginx.sh FOLDER PORT SERVICE_PORT SERVICE_PORT
#
# The file is taken as it is, but for the ports. FOLDER holds what nginx writes. The program is found by
# scripts/packages.sh.
set -euo pipefail
[ $# = 4 ] || { echo "usage: $0 FOLDER PORT SERVICE_PORT SERVICE_PORT" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)

sed -e "s/127\.0\.0\.1:8300\b/127.0.0.1:$2/" -e "s/127\.0\.0\.1:8301\b/127.0.0.1:$3/" \
    -e "s/127\.0\.0\.1:8302\b/127.0.0.1:$4/" "$here/../deploy/nginx.conf" >"$folder/m6rec.conf"
{
    echo "daemon off; pid nginx.pid; error_log stderr;"
    [ "$(id -u)" != 0 ] || echo "user $(id -un) $(id -gn);"
    echo "events {} http { access_log off; include m6rec.conf;"
    for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $kind;"; done
    echo "}"
} >"$folder/nginx.conf"
. "$here/packages.sh"
find_program nginx nginx:nginx
"$program" -t -p "$folder" -e stderr -c nginx.conf
exec "$program" -p "$folder" -e stderr -c nginx.conf
