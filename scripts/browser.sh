#!/usr/bin/env bash
# Prepares web/: its packages by package-lock.json, the page of `m6rec serve` (in m6rec/serving/page) and that of the
# demo, and a Chromium to test them with, which is installed from Debian's packages where there is none and this is root.
set -euo pipefail
cd "$(dirname "$0")/../web"

command -v npm >/dev/null || { echo "$0: install node 20 or later with npm; they are not here" >&2; exit 1; }
npm ci --no-audit --no-fund
npm run build

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install chromium
else
    echo "$0: there is no Chromium, so the tests of the pages will be skipped; install one" >&2
fi
