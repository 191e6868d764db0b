// SPDX-License-Identifier: Apache-2.0
// What runs inside the guest before the test's own script: the init program, and the shell functions a script may use.
//
// Two serial lines leave the guest. ttyS0 is the console: everything printed, kernel messages included. ttyS1 is the
// control line: short lines that a kernel message can never tear apart.
//   guest to test   MARK name · VALUE key text · EXIT rc
//   test to guest   GO name
// The shell is busybox, which runs its own tools before those of the same name on disk: where the full tool is meant
// (blkdiscard, blkid), a script gives its path.
// Functions for scripts:
//   mark NAME        tells the test that this point is reached
//   wait_go NAME S   waits until the test sent GO NAME, at most S seconds (60 when not given)
//   value KEY TEXT   hands one value back (one line)
//   value_file KEY F hands a file back
//   fail TEXT        ends the script with an error
//   step TEXT        says what comes next, with the guest's uptime, so that a log shows where time went
//   until_ok S CMD   repeats CMD every 50 ms until it succeeds, at most S seconds

import { guestAddress, machineAddress } from './network.js';

export const hostNqn = 'nqn.2014-08.org.nvmexpress:uuid:6b1c2f0e-4a57-4bd5-9d0e-2f5a7c3b9e10';
export const hostId = '6b1c2f0e-4a57-4bd5-9d0e-2f5a7c3b9e10';
export const scriptFwCfgName = 'opt/basalt/script';
/** On the kernel's command line: the guest's own address, where it has one. */
export const addressParameter = 'basalt.address';

export const initScript = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir -p /run/go
ulimit -l unlimited
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
modprobe qemu_fw_cfg
modprobe virtio_pci
modprobe virtio_net
own=$(sed -n 's/.*${addressParameter}=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
if [ -n "$own" ]; then
  # Targets listen on loopback addresses only: here such an address is reached over the network.
  ip addr del 127.0.0.1/8 dev lo
  ip addr add 127.0.0.1/32 dev lo
  for at in all eth0; do
    echo 1 >/proc/sys/net/ipv4/conf/$at/route_localnet
    echo 0 >/proc/sys/net/ipv4/conf/$at/rp_filter
  done
  ip link set eth0 up
  ip addr add "$own/24" dev eth0
elif [ -d /sys/class/net/eth0 ]; then
  ip addr add ${guestAddress}/24 dev eth0
  ip link set eth0 up
  ip route add default via ${machineAddress}
fi
# One reader of the control line; scripts and their background jobs wait for files.
( while read -r word name <&3; do [ "$word" = GO ] && : >"/run/go/$name"; done ) &
cat /sys/firmware/qemu_fw_cfg/by_name/${scriptFwCfgName}/raw >/run/script
cd /root
echo "GUEST-START kernel=$(uname -r) uptime=$(cut -d' ' -f1 /proc/uptime)"
dmesg -c >/dev/null
sh /run/script </dev/null 2>&1
rc=$?
if [ "$rc" != 0 ]; then
  echo GUEST-DMESG-BEGIN
  dmesg | tail -n 60
  echo GUEST-DMESG-END
fi
printf 'EXIT %s\\n' "$rc" >&3
echo "GUEST-EXIT rc=$rc"
poweroff -f
`;

/** Put in front of every script. */
export const scriptPrelude = `set -u
mark() { echo "MARK $1"; printf 'MARK %s\\n' "$1" >&3; }
value() { printf 'VALUE %s %s\\n' "$1" "$2" >&3; }
value_file() { printf 'VALUE %s base64:%s\\n' "$1" "$(base64 -w0 "$2")" >&3; }
fail() { echo "FAIL $*"; exit 1; }
step() { echo "STEP $(cut -d' ' -f1 /proc/uptime) $*"; }
until_ok() {
  _left=$(($1 * 20)); shift
  until "$@"; do
    _left=$((_left - 1)); [ "$_left" -gt 0 ] || { echo "gave up waiting for: $*"; return 1; }
    usleep 50000
  done
}
wait_go() { until_ok "\${2:-60}" test -e "/run/go/$1" || fail "no GO $1 from the test"; }
`;
