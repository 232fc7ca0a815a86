#!/usr/bin/env bash
# machines.sh WORK BIN SECONDS COMMAND…: COMMAND runs on a "laptop", beside three machines made of namespaces: 10.77.0.11
# (head), .12 (w1) and .13 (w2), which it reaches by ssh as root with the key WORK/key. WORK/shared is the folder
# /mnt/shared of all three. BIN is the bin folder of the environment with Ray.
#
# The network is the laptop's own and has no way out; when COMMAND ends, after SECONDS at the latest, or when this
# process is killed, every machine, mount and link is gone.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")") work=$1 bin=$2 seconds=$3

if [ "${ON_LAPTOP:-}" = "" ]; then
  export ON_LAPTOP=1
  exec unshare --net --pid --mount --uts --ipc --fork --mount-proc --kill-child timeout -s KILL "$seconds" bash "$0" "$@"
fi

shift 3
hostname laptop
mkdir -p "$work"/{shared,home}
mount -t tmpfs tmpfs /dev/shm # a short path for temporary files: Ray has sockets among them
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
ip link set lo up
ip link add br0 type bridge
ip addr add 10.77.0.1/24 dev br0
ip link set br0 up
for name in head w1 w2; do bash "$here/machine.sh" "$work" "$bin" "$name"; done
HOME=$work/home TMPDIR=/dev/shm PATH=$bin:$PATH RAY_USAGE_STATS_ENABLED=0 "$@"
