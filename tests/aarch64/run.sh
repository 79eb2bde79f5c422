#!/bin/sh
# Impasto as aarch64 programs on an x86-64 machine: Debian's arm64 packages and Python 3.11, this folder installed there with the pins,
# every shipped model drawn on both machines, and the tests that need no torch. QEMU translates instructions; it is no Jetson, and its
# timings mean nothing.
#
#   sudo sh tests/aarch64/run.sh [ROOT]     ROOT: where the arm64 system lies or is made; build/aarch64 by default
#
# Wants root, qemu-user-static, debootstrap, git, a network, and .venv (make setup) to draw the same pictures on x86-64. A run
# takes half an hour, the next in the same ROOT a third less.
set -eu
repository=$(cd "$(dirname "$0")/../.." && pwd)
root=${1:-$repository/build/aarch64}
handlers=/proc/sys/fs/binfmt_misc

# Mounts live in a namespace of their own and are gone when the script is.
[ "${AARCH64_OWN_MOUNTS:-}" ] || AARCH64_OWN_MOUNTS=1 exec unshare --mount sh "$0" "$@"

[ -e $handlers/status ] || mount -t binfmt_misc binfmt_misc $handlers
# Where systemd runs, installing qemu-user-static has done this.
[ -e $handlers/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf > $handlers/register
[ -e "$root/usr/bin/python3" ] ||
    debootstrap --arch=arm64 --variant=minbase --include=python3-venv bookworm "$root"
mkdir -p "$root/impasto"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
mkdir -p "$root/etc/ssl/certs"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"

# ONNX Runtime asks /proc/cpuinfo what the CPU can do, finds the host's x86-64 there and crashes. A Jetson Orin's Cortex-A78AE
# answers like this, and the Neoverse N1 that QEMU knows has the same instructions: half precision and dot products, no SVE.
: > "$root/cpuinfo"
for core in $(seq 0 $(($(nproc) - 1))); do
    printf '%s\t: %s\n' processor "$core" BogoMIPS 62.50 \
        Features "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat ilrcpc flagm" \
        "CPU implementer" 0x41 "CPU architecture" 8 "CPU variant" 0x0 "CPU part" 0xd42 "CPU revision" 1 >> "$root/cpuinfo"
    echo >> "$root/cpuinfo"
done
mount --bind "$root/cpuinfo" "$root/proc/cpuinfo"

git -C "$repository" ls-files -z | tar -C "$repository" --null -T - -c | tar -C "$root/impasto" -x

# CI=1: Hypothesis then sets tests no deadlines, which no emulated test would keep.
inside() {
    chroot "$root" env -i HOME=/root LANG=C.UTF-8 CI=1 QEMU_CPU=neoverse-n1 PATH=/venv/bin:/usr/bin:/bin \
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 sh -ec "cd /impasto; $1"
}
inside "[ -x /venv/bin/pip ] || python3 -m venv /venv
    pip install -q -c constraints.txt -e '.[cpu,openvino,export]' pytest pytest-timeout hypothesis jsonschema
    impasto doctor
    python tests/aarch64/pictures.py draw /pictures-aarch64.npz"
"$repository/.venv/bin/python" "$repository/tests/aarch64/pictures.py" draw "$root/pictures-x86-64.npz"
"$repository/.venv/bin/python" "$repository/tests/aarch64/pictures.py" compare "$root/pictures-x86-64.npz" "$root/pictures-aarch64.npz"
inside "python -m pytest --timeout=1800 tests/images/test_images.py tests/test_architecture.py tests/kernels/test_plan.py tests/runtime tests/cli"
