#!/bin/sh
# Installs the Debian packages that building, testing and running need. Quiet when nothing is missing; safe to repeat.
set -eu
packages="gcc make git pkg-config libzmq3-dev libprotobuf-c-dev protobuf-c-compiler libopenblas-dev libcjson-dev libyaml-dev
libsqlite3-dev libmicrohttpd-dev libcurl4-openssl-dev libsodium-dev libpcre2-dev libutf8proc-dev zlib1g-dev libzstd-dev
libxxhash-dev libcmocka-dev curl iproute2 nftables patch"
missing=""
for p in $packages; do
    status=$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "make deps: these Debian packages are missing:$missing" >&2
    echo "make deps: run as root:  apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing:$missing"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "make deps: installing packages failed, see above" >&2
    exit 1
fi
rm -f "$log"
