#!/bin/sh
# Fetches Debian's cloud kernel (linux-image-6.1.*-cloud-amd64) and unpacks its vmlinuz to samples/linux/cache/vmlinuz, or to the folder that is given.
# Prints the file's name. Needs apt-get and dpkg-deb (any Debian or Ubuntu) and a network; installs nothing.
#
#     samples/linux/fetch-kernel.sh [folder]
set -eu

fail() {
    echo "fetch-kernel.sh: $1" >&2
    echo "fetch-kernel.sh: instead, copy any x86-64 bzImage with CONFIG_SERIAL_8250_CONSOLE to $cache/vmlinuz (most distributions' /boot/vmlinuz-* is one)" >&2
    exit 1
}

cache=${1:-$(cd "$(dirname "$0")" && pwd)/cache}
mkdir -p "$cache"
if [ -s "$cache/vmlinuz" ]; then
    echo "$cache/vmlinuz"
    exit 0
fi

for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" > /dev/null || fail "no $tool on this machine"
done

# linux-image-cloud-amd64 is a metapackage: the kernel is in the package that it depends on.
package=$(apt-cache depends linux-image-cloud-amd64 2> /dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1)
if [ -z "$package" ]; then
    package=$(apt-cache search --names-only '^linux-image-6\.1\..*-cloud-amd64$' 2> /dev/null | sed 's/ .*//' | sort -V | tail -n 1)
fi
[ -n "$package" ] || fail "apt knows no linux-image-*-cloud-amd64 (run apt-get update first?)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get -o Acquire::Retries=1 -o Acquire::http::Timeout=20 download "$package") > "$work/log" 2>&1 || fail "cannot download $package: $(tail -n 1 "$work/log")"
dpkg-deb --extract "$work"/*.deb "$work/root" || fail "cannot unpack $package"
# A copy beside the place and then a rename: whoever looks finds a whole file or none.
cp "$work"/root/boot/vmlinuz-* "$cache/vmlinuz.$$" || fail "$package has no /boot/vmlinuz"
basename "$work"/root/boot/vmlinuz-* > "$cache/version"
mv "$cache/vmlinuz.$$" "$cache/vmlinuz"
echo "$cache/vmlinuz"
