#!/usr/bin/env bash
# Install what the build and the tests need and this machine does not have yet. Debian 12 and 13, as
# root or through sudo. Says what it installs and why; silent and quick when nothing is missing.
#
#     tools/setup.sh [build] [test] [check] [integrations] [bench]
set -euo pipefail

libraft=0.22.1

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# shellcheck disable=SC1091 # a file of the system
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
case $release in
bookworm) llhttp=node-llhttp ;;
trixie) llhttp=libllhttp-dev ;;
*) die "this is '$release'; Debian 12 (bookworm) and 13 (trixie) are supported" ;;
esac

# group, package, why. Without arguments all groups but integrations and bench are wanted.
table="
build gcc compiler
build libc6-dev headers of the C library
build make the commands
build cmake build
build ninja-build build
build pkg-config finds the libraries
build python3 checks of the tree
build libuv1-dev event loop
build libnghttp2-dev HTTP/2
build $llhttp HTTP/1.1 parser
build libssl-dev TLS
build zlib1g-dev gzip messages
build libprotobuf-c-dev messages
build protobuf-c-compiler messages
build protobuf-compiler messages
build libprotobuf-dev google/protobuf/struct.proto
build libjansson-dev JSON
build librocksdb-dev documents
build libsodium-dev passwords and sealed keys
build libjwt-dev tokens
build libsqlite3-dev accounts of one machine, feedback
test git formatting looks at tracked files
build curl make run looks whether the server is ready
test openssl certificates
test python3-numpy reference results
test python3-grpcio client
test python3-protobuf client
test python3-pytest test runner
test golang-go Go client
test npm JavaScript client
check clang fuzz targets
check llvm symbols in sanitizer reports
check clang-format formatting
check clang-tidy linting
check shellcheck scripts
bench nghttp2-client h2load
integrations python3-venv packages from PyPI
bench python3-venv peers
bench g++ builds hnswlib
bench python3-dev builds hnswlib
"
if [ "$release" = bookworm ]; then
    table="$table
check libclang-rt-14-dev sanitizers of clang"
fi
[ $# -gt 0 ] || set -- build test check

installed() { # package: is it there?
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
reasons=()
while read -r group package why; do
    case " $* " in *" ${group:-none} "*) ;; *) continue ;; esac
    # A tool that came some other way serves as well.
    case $package in
    npm) command -v npm >/dev/null && continue ;;
    golang-go) command -v go >/dev/null && continue ;;
    esac
    if ! installed "$package"; then
        missing+=("$package")
        reasons+=("$package ($why)")
    fi
done <<<"$table"

raft_version=$(dpkg-query -W -f '${Version}' libraft-dev 2>/dev/null || true)
raft_ok=false
case $raft_version in "$libraft"-*) installed libraft-dev && raft_ok=true ;; esac

if [ ${#missing[@]} -eq 0 ] && $raft_ok; then
    exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null; then
    as_root=(sudo)
else
    die "packages are missing and neither root nor sudo is here: ${missing[*]} libraft-dev"
fi

apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq \
        -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@" >&2
}

# Debian 12's own libraft loses committed entries, so its backports suite is added. The mirror is the
# one that this machine already uses for the release itself.
# shellcheck disable=SC2016 # the $(…) are words of apt's own format
add_backports() {
    local uri file=/etc/apt/sources.list.d/vectron-backports.list
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    if apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' |
        grep -qx "$release-backports"; then
        return
    fi
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
        "Release: $release" 'Component: main' | head -n 1)
    [ -n "$uri" ] || die "no source of $release main is configured; cannot derive its backports"
    say "adding the suite $release-backports of this machine's mirror, for libraft $libraft"
    if [ -e "$keyring" ]; then
        uri="[signed-by=$keyring] $uri"
    fi
    echo "deb ${uri%/} $release-backports main" |
        "${as_root[@]}" tee "$file" >/dev/null
}

if ! $raft_ok; then
    reasons+=("libraft-dev $libraft (consensus${raft_version:+; $raft_version is installed})")
    [ "$release" != bookworm ] || add_backports
fi
say "installing: $(printf '%s, ' "${reasons[@]}" | sed 's/, $//')"
apt_get update
if [ ${#missing[@]} -gt 0 ]; then
    apt_get install --no-install-recommends -y "${missing[@]}"
fi
if ! $raft_ok; then
    version=$(apt-cache madison libraft-dev | awk -v want="$libraft-" \
        'index($3, want) == 1 { print $3; exit }')
    [ -n "$version" ] || die "no source offers libraft-dev $libraft"
    apt_get install --no-install-recommends -y --allow-downgrades \
        "libraft-dev=$version" "libraft0=$version"
fi
say "done"
