#!/bin/sh
# Builds an initial file system for Debian's cloud kernel: busybox-static, the kernel's virtio modules, and what is in samples/linux/initramfs.
# Writes initrd.img (and vmlinuz, when it is not there) to samples/linux/cache, or to the folder that is given, and prints the file's name.
# Needs apt-get and dpkg-deb (any Debian or Ubuntu) and a network; no root; installs nothing.
#
#     samples/linux/build-initramfs.sh [folder]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${1:-$here/cache}

fail() {
    echo "build-initramfs.sh: $1" >&2
    echo "build-initramfs.sh: instead, copy any initial file system whose shell is on ttyS0 to $cache/initrd.img" >&2
    exit 1
}

mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
image=$cache/initrd.img
# Newer than what it is made of: nothing to do.
if [ -s "$image" ] && [ -s "$cache/vmlinuz" ] && [ -z "$(find "$here/initramfs" "$here/build-initramfs.sh" -newer "$image")" ]; then
    echo "$image"
    exit 0
fi

for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" > /dev/null || fail "no $tool on this machine"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {
    (cd "$work" && apt-get -o Acquire::Retries=1 -o Acquire::http::Timeout=20 download "$1") > "$work/log" 2>&1 || fail "cannot download $1: $(tail -n 1 "$work/log")"
    dpkg-deb --extract "$work"/"$1"_*.deb "$work/$2" || fail "cannot unpack $1"
    rm "$work"/"$1"_*.deb
}

# Modules must be those of the kernel: the version that fetch-kernel.sh has written down, or else the one that the metapackage names now.
if [ -s "$cache/version" ]; then
    package=linux-image-$(sed 's/^vmlinuz-//' "$cache/version")
else
    package=$(apt-cache depends linux-image-cloud-amd64 2> /dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1)
    [ -n "$package" ] || fail "apt knows no linux-image-cloud-amd64 (run apt-get update first?)"
fi
fetch "$package" kernel
fetch busybox-static busybox
busybox=$work/busybox/bin/busybox
[ -x "$busybox" ] || fail "busybox-static has no /bin/busybox"
if [ ! -s "$cache/vmlinuz" ]; then
    cp "$work"/kernel/boot/vmlinuz-* "$cache/vmlinuz.$$"
    basename "$work"/kernel/boot/vmlinuz-* > "$cache/version"
    mv "$cache/vmlinuz.$$" "$cache/vmlinuz"
fi

root=$work/root
mkdir -p "$root"/bin "$root"/dev "$root"/etc "$root"/mnt "$root"/proc "$root"/root "$root"/sys "$root"/tmp "$root"/lib/modules
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
ln -s bin "$root/sbin"
cp -R "$here"/initramfs/. "$root/"
chmod 755 "$root/init" "$root"/etc/rcS "$root"/etc/udhcpc
for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_mmio virtio_blk failover net_failover virtio_net \
    virtio_console virtio-rng virtio_balloon vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport; do
    file=$(find "$work/kernel/lib/modules" -name "$module.ko")
    [ -n "$file" ] || fail "$package has no module $module"
    cp "$file" "$root/lib/modules/"
done

# The same bytes each time: names in order, owner root.
(cd "$root" && find . | LC_ALL=C sort | "$busybox" cpio -o -H newc -R 0:0 2> "$work/log") > "$image.$$" || fail "cannot write $image: $(tail -n 1 "$work/log")"
mv "$image.$$" "$image"
echo "$image"
