#!/bin/sh
# Fetches Debian's firmware and boot programs and unpacks them to samples/firmware/cache, or to the folder that is given:
#
#     bios-256k.bin                                 SeaBIOS (package seabios)
#     OVMF.fd, OVMF_CODE_4M.fd, OVMF_VARS_4M.fd     UEFI firmware (ovmf): in one piece; code and variables apart
#     memtest86+x64.bin                             memtest86+ (memtest86+)
#     grub-core.img, grub-floppy.img                GRUB with grub.cfg of this folder (grub-pc-bin, made with grub-common's grub-mkimage):
#                                                   a multiboot image, and a floppy disk that a BIOS boots
#
# Prints the folder's name. Needs apt-get, dpkg-deb and tar (any Debian or Ubuntu) and a network; installs nothing.
#
#     samples/firmware/fetch.sh [folder]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${1:-$here/cache}

fail() {
    echo "fetch.sh: $1" >&2
    echo "fetch.sh: instead, copy the files that the script's head names to $cache (most distributions have packages of them)" >&2
    exit 1
}

missing() {
    for file in "$@"; do
        [ -s "$cache/$file" ] || return 0
    done
    return 1
}

mkdir -p "$cache"
if ! missing bios-256k.bin OVMF.fd OVMF_CODE_4M.fd OVMF_VARS_4M.fd memtest86+x64.bin grub-core.img grub-floppy.img; then
    echo "$cache"
    exit 0
fi

for tool in apt-get dpkg-deb tar; do
    command -v "$tool" > /dev/null || fail "no $tool on this machine"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

get() {
    for package in "$@"; do
        (cd "$work" && apt-get -o Acquire::Retries=1 -o Acquire::http::Timeout=20 download "$package") > "$work/log" 2>&1 ||
            fail "cannot download $package (run apt-get update first?): $(grep -v '^W:' "$work/log" | tail -n 1)"
        dpkg-deb --extract "$work/$package"_*.deb "$root" || fail "cannot unpack $package"
    done
}

# A copy beside the place and then a rename: whoever looks finds a whole file or none.
keep() {
    cp "$1" "$cache/$2.$$" || fail "no ${1#"$root"} in the package"
    mv "$cache/$2.$$" "$cache/$2"
}

if missing bios-256k.bin; then
    get seabios
    keep "$root/usr/share/seabios/bios-256k.bin" bios-256k.bin
fi

if missing OVMF.fd OVMF_CODE_4M.fd OVMF_VARS_4M.fd; then
    get ovmf
    keep "$root/usr/share/ovmf/OVMF.fd" OVMF.fd
    keep "$root/usr/share/OVMF/OVMF_CODE_4M.fd" OVMF_CODE_4M.fd
    keep "$root/usr/share/OVMF/OVMF_VARS_4M.fd" OVMF_VARS_4M.fd
fi

if missing memtest86+x64.bin; then
    get memtest86+
    keep "$root/boot/memtest86+x64.bin" memtest86+x64.bin
fi

if missing grub-core.img grub-floppy.img; then
    get grub-pc-bin grub-common
    modules=$root/usr/lib/grub/i386-pc
    mkimage=$root/usr/bin/grub-mkimage
    if ! "$mkimage" --version > /dev/null 2>&1; then
        get libdevmapper1.02.1 libselinux1 libudev1 liblzma5
        LD_LIBRARY_PATH=$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu
        export LD_LIBRARY_PATH
        "$mkimage" --version > /dev/null 2>&1 || fail "grub-mkimage does not run here (install grub-common)"
    fi

    # GRUB's disk in memory: its menu, and a program to boot.
    mkdir -p "$work/disk/boot/grub"
    cp "$here/grub.cfg" "$work/disk/boot/grub/"
    cp "$cache/memtest86+x64.bin" "$work/disk/boot/"
    tar -C "$work/disk" --format=ustar -cf "$work/disk.tar" boot
    "$mkimage" -d "$modules" -O i386-pc -p '(memdisk)/boot/grub' -c "$here/grub-early.cfg" -m "$work/disk.tar" -o "$work/core.img" \
        biosdisk configfile echo halt help linux ls lsmmap memdisk minicmd normal reboot serial sleep tar terminal test
    keep "$work/core.img" grub-core.img
    # The boot sector loads what follows it.
    cat "$modules/boot.img" "$work/core.img" > "$work/floppy.img"
    truncate -s 1440K "$work/floppy.img"
    keep "$work/floppy.img" grub-floppy.img
fi

echo "$cache"
