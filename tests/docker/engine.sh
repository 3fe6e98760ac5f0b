#!/bin/bash
# The first process of new mount, network and process namespaces: `engine.sh FOLDER` enters FOLDER/engine and runs
# dockerd there. Its mounts, network and processes disappear with it; its cgroups are /speck-compose.
set -euo pipefail
work=$1
root=$work/engine

mount --make-rprivate /
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/var/lib/docker" "$root/srv" "$root/old"
mount --bind "$work/images" "$root/var/lib/docker"
mount --bind "$work" "$root/srv"
cd "$root"
pivot_root . old
umount --lazy /old

# slirp4netns brings the network tap0 with a name server.
rm -f /etc/resolv.conf
echo "nameserver 10.0.2.3" > /etc/resolv.conf
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
until ip -brief address show tap0 2> /dev/null | grep -q 10.0.2.; do sleep 0.1; done
exec dockerd --storage-driver overlay2 --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent speck-compose
