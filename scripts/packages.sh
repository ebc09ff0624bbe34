# Sourced by scripts that run a server: the installed program, else Debian's package unpacked into the cache of this
# user. Nothing is installed, root is not needed.
#
#   find_program NAME PROGRAM:PACKAGE...      sets $program to the first that can be had, and LD_LIBRARY_PATH for it

find_program() {
    local name=$1 one library
    shift
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/m6rec/$name
    _program "$cache" "$@" || _unpack "$cache" "$@"
    _program "$cache" "$@"
    case $program in
    "$cache"/*)
        for library in "$cache"/root/{usr/,}lib/*-linux-gnu*; do
            LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        done
        export LD_LIBRARY_PATH
        ;;
    esac
}

_program() {
    local cache=$1 one found
    shift
    for one in "$@"; do
        for found in "${one%:*}" "$cache"/root/usr/{bin,sbin}/"${one%:*}"; do
            program=$(command -v "$found") && return
        done
    done
    return 1
}

_unpack() { (
    exec >&2
    cache=$1
    shift
    command -v apt-get >/dev/null || { echo "$0: install ${*%:*}; it is not here" >&2; exit 1; }
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    _program "$cache" "$@" && exit 0 # another run was faster
    fresh=$(mktemp -d "$cache/fresh.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    mkdir -p "$fresh"/{lists,archives}/partial
    apt() {
        apt-get -qq -o Debug::NoLocking=1 -o APT::Sandbox::User= -o "Dir::State::lists=$fresh/lists" \
            -o "Dir::Cache=$fresh" "$@"
    }
    apt update
    for package in "${@#*:}"; do
        apt --yes --download-only --no-install-recommends install "$package" 2>"$fresh/error" && break
    done
    ls "$fresh"/archives/*.deb >/dev/null 2>&1 || { cat "$fresh/error"; exit 1; }
    for archive in "$fresh"/archives/*.deb; do dpkg -x "$archive" "$fresh/root"; done
    mv -T "$fresh/root" "$cache/root"
); }
