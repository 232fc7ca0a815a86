#!/usr/bin/env bash
# machine.sh WORK BIN NAME: starts machine NAME (head, w1 or w2), or starts it again, and waits for its sshd. For
# machines.sh. WORK/NAME.pid is then its PID 1 (kill -9: as if its power were cut), v-NAME its cable (ip link set … down),
# WORK/NAME its disk, which outlives it (umount: the next start is that of a new machine).
#
# Its processes, network, host name and users' home are its own. Its root is a copy-on-write view of this machine's, so
# that it sees interpreter and environment under their paths, and nothing that it writes is seen outside.
set -euo pipefail
work=$1 bin=$2 name=$3
declare -A addresses=([head]=10.77.0.11 [w1]=10.77.0.12 [w2]=10.77.0.13)
address=${addresses[$name]}

disk=$work/$name root=$work/$name/root

if [ "${ON_MACHINE:-}" = "" ]; then
  mkdir -p "$disk"
  mountpoint -q "$disk" || mount -t tmpfs -o size=2g tmpfs "$disk"
  ON_MACHINE=1 unshare --net --pid --mount --uts --ipc --fork --kill-child bash "$0" "$@" >"$work/$name.log" 2>&1 &
  until init=$(cat "/proc/$!/task/$!/children" 2>/dev/null) && init=${init% } && [ -n "$init" ]; do sleep 0.05; done
  echo "$init" >"$work/$name.pid"
  until [ "$(readlink "/proc/$init/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
  ip link del "v-$name" 2>/dev/null || true # of the machine that was
  # One hardware address for good: neighbours who remember another one would not find it for ten seconds.
  ip link add "v-$name" type veth peer name eth0 address "02:00:00:00:00:${address##*.}" netns "$init"
  ip link set "v-$name" master br0 up
  for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/$address/22") 2>/dev/null && exit 0
    sleep 0.1
  done
  echo "machine $name did not come up" >&2
  cat "$work/$name.log" >&2
  exit 1
fi

# From here on: PID 1 of the machine.
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
hostname "$name"
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up

new=$([ -e "$root" ] || echo yes) layers=0
mkdir -p "$root" "$disk/ray"

layer() { # of the file system that is mounted at $1
  layers=$((layers + 1))
  mkdir -p "$disk/$layers"/{upper,work}
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$disk/$layers/upper,workdir=$disk/$layers/work" "$root$1"
}

layer /
for path in "$bin" "$(readlink -f "$bin/python")"; do # they may lie on another one
  place=$(findmnt -n -o TARGET -T "$path")
  mountpoint -q "$root$place" || layer "$place"
done
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=1g tmpfs "$root/dev/shm"
mkdir -p "$root/tmp/ray" "$root/mnt/shared" "$root/run/sshd"
mount --bind "$disk/ray" "$root/tmp/ray"
mount --bind "$work/shared" "$root/mnt/shared"

if [ "$new" ]; then
  printf '127.0.0.1 localhost\n%s %s\n' "$address" "$name" >"$root/etc/hosts"
  home=$root$(echo ~root)
  rm -rf "$home"/{.ray,.ssh,.bashrc,.bash_profile,.bash_login,.profile}
  mkdir -p -m 700 "$home/.ssh"
  cp "$work/key.pub" "$home/.ssh/authorized_keys"
  touch "$home/.bashrc"
  ssh-keygen -q -t ed25519 -N '' -f "$root/etc/ssh/test_host_key"
fi
chroot "$root" "$(command -v sshd)" -D -e -f /dev/null -h /etc/ssh/test_host_key -o ListenAddress="$address:22" \
  -o PidFile=none -o UsePAM=no -o PasswordAuthentication=no -o PermitRootLogin=prohibit-password -o MaxSessions=100 &
wait
