// SPDX-License-Identifier: Apache-2.0
// Generators of the shell scripts of the RDMA guests. Pure, as those in guest-scripts.ts. Each waits, after a mark, until the
// test has told the engines in the guest what to do (GO).

import { enginedFunctions } from './engined-disk.js';
import { nvmeFunctions } from './guest-scripts.js';

/** On a dummy device, because the RDMA connection manager does not work on the loopback device. */
export const roceAddress = '192.168.77.1';
export const rdmaPorts = [4420, 4421] as const;
export const tcpPort = 4430;
export const kernelPort = 4440;
/** Where the RPC of the guest's engines is reached, in the order in which they are started. */
export const rpcPorts = [7000, 7001, 7002] as const;

const roceFunctions = `
roce() {
  modprobe rdma_rxe && modprobe rdma_ucm && modprobe ib_uverbs || fail "modules"
  /bin/ip link add roce0 type dummy && /bin/ip addr add ${roceAddress}/24 dev roce0 || fail "roce0"
  /bin/ip link set roce0 mtu 9000 up
  rdma link add rxe0 type rxe netdev roce0 || fail "rxe0"
  modprobe nvme_rdma; modprobe nvme_tcp
}
`;

const verifyFunctions = `
verify_disk() {
  for pattern in 4k:randwrite 64k:randwrite 512k:write; do
    fio --name=raw --filename="$1" --direct=1 --ioengine=libaio --iodepth=16 --bs=\${pattern%:*} --rw=\${pattern#*:} \\
      --numjobs=2 --size=6m --offset_increment=16m --verify=crc32c --verify_fatal=1 --group_reporting --eta=never \\
      --output-format=json --output=/run/fio.json || { cat /run/fio.json; fail "fio $pattern"; }
  done
}
`;

const head = `${nvmeFunctions}${enginedFunctions}${roceFunctions}${verifyFunctions}`;

/**
 * engined `target` is asked before there is an adapter (mark no-adapter, GO adapter) and after (mark adapter, GO serving).
 * Linux's host discovers, connects, verifies, makes a file system, reconnects and finds it (mark verified, GO disconnect).
 */
export function linuxHostScript(nqn: string): string {
  const where = `-t rdma -a ${roceAddress} -s ${rdmaPorts[0]}`;
  return `${head}
start_engined target ${rpcPorts[0]}
mark no-adapter
wait_go adapter
roce
mark adapter
wait_go serving
step discover
nvme discover ${where} >/run/discovery 2>&1 || { cat /run/discovery; fail "discover"; }
value_file discovery /run/discovery
step connect
nvme connect ${where} -n ${nqn} --reconnect-delay=1 --ctrl-loss-tmo=30 || fail "connect"
until_ok 30 have_disk ${nqn} || fail "no block device"
disk=$(nvme_disk ${nqn})
step verify
verify_disk "$disk"
value_file fio /run/fio.json
step "file system"
mkfs.ext4 -q "$disk" || fail "mkfs"
mount -t ext4 "$disk" /mnt || fail "mount"
write_files /mnt/files /run/sums
umount /mnt || fail "umount"
step reconnect
nvme disconnect -n ${nqn} || fail "disconnect"
until_ok 30 no_disk ${nqn} || fail "the block device stayed"
nvme connect ${where} -n ${nqn} --reconnect-delay=1 --ctrl-loss-tmo=30 || fail "second connect"
until_ok 30 have_disk ${nqn} || fail "no block device after reconnect"
disk=$(nvme_disk ${nqn})
fsck_clean "$disk"
mount -t ext4 -o ro "$disk" /mnt || fail "second mount"
check_files /mnt/files /run/sums
umount /mnt
mark verified
wait_go disconnect
nvme disconnect -n ${nqn} || fail "second disconnect"
dmesg | grep 'nvme nvme[0-9]' >/run/driver
value_file driver /run/driver
host_is_clean
mark disconnected
wait_go over
engined_lives target
`;
}

/** Linux's target, of a RAM disk. */
function kernelTarget(nqn: string, trtype: 'rdma' | 'tcp'): string {
  return `
echo never >/sys/kernel/mm/transparent_hugepage/enabled
modprobe configfs; modprobe nvmet; modprobe nvmet_${trtype}
modprobe brd rd_nr=1 rd_size=65536
mount -t configfs none /sys/kernel/config 2>/dev/null
cd /sys/kernel/config/nvmet
mkdir subsystems/${nqn}
echo 1 >subsystems/${nqn}/attr_allow_any_host
mkdir subsystems/${nqn}/namespaces/1
echo -n /dev/ram0 >subsystems/${nqn}/namespaces/1/device_path
echo 1 >subsystems/${nqn}/namespaces/1/enable || fail "kernel target: namespace"
mkdir ports/1
echo ${trtype} >ports/1/addr_trtype
echo ipv4 >ports/1/addr_adrfam
echo ${trtype === 'rdma' ? roceAddress : '127.0.0.1'} >ports/1/addr_traddr
echo ${kernelPort} >ports/1/addr_trsvcid
ln -s /sys/kernel/config/nvmet/subsystems/${nqn} ports/1/subsystems/${nqn} || fail "kernel target: port"
cd /root
`;
}

const connectByTcp = (nqn: string): string => `
step connect
nvme connect -t tcp -a 127.0.0.1 -s ${tcpPort} -n ${nqn} || fail "connect"
until_ok 30 have_disk ${nqn} || fail "no block device"
disk=$(nvme_disk ${nqn})
`;

/** engined `host` uses Linux's target by RDMA and serves it on by TCP (mark adapter, GO serving), where Linux verifies it. */
export function linuxTargetScript(farNqn: string, nqn: string): string {
  return `${head}
roce
${kernelTarget(farNqn, 'rdma')}
start_engined host ${rpcPorts[0]}
mark adapter
wait_go serving
${connectByTcp(nqn)}
step verify
verify_disk "$disk"
value_file fio /run/fio.json
nvme disconnect -n ${nqn} || fail "disconnect"
mark verified
wait_go over
host_is_clean
engined_lives host
`;
}

/**
 * engined `a` and `b` serve one disk (Linux's target) by RDMA; engined `host` uses both and serves it on by TCP (mark
 * adapter, GO serving). `a` is killed while Linux writes and verifies (mark verified, GO over).
 */
export function killScript(farNqn: string, nqn: string): string {
  return `${head}
roce
${kernelTarget(farNqn, 'tcp')}
start_engined a ${rpcPorts[0]}
start_engined b ${rpcPorts[1]}
start_engined host ${rpcPorts[2]}
mark adapter
wait_go serving 120
${connectByTcp(nqn)}
step "verify under the kill"
writes=$(writes_done)
fio --name=kill --filename="$disk" --direct=1 --ioengine=libaio --iodepth=8 --bs=4k --rw=randwrite --size=8m \\
  --rate_iops=200 --verify=crc32c --verify_fatal=1 --eta=never --output-format=json --output=/run/fio.json &
fio_pid=$!
until_ok 30 wrote_more_than $((writes + 100)) || fail "fio does not write"
kill_engined a
kill -0 $fio_pid 2>/dev/null || fail "fio ended before the kill: nothing was proved"
writes=$(writes_done)
until_ok 60 wrote_more_than $((writes + 100)) || fail "no writes after the kill"
wait $fio_pid
fio_rc=$?
value_file fio /run/fio.json
[ $fio_rc = 0 ] || { cat /run/fio.json; fail "fio: exit code $fio_rc"; }
nvme disconnect -n ${nqn} || fail "disconnect"
mark verified
wait_go over
host_is_clean
engined_lives b
engined_lives host
`;
}

/**
 * engined `target` serves by RDMA and engined `host` uses it (mark adapter, GO down); then the adapter's port goes down (mark
 * down, GO over). A connection that ends while it is down leaves soft-RoCE without a connection manager, whoever's it is, so
 * nothing can come after it.
 */
export function portLossScript(): string {
  return `${head}
roce
start_engined target ${rpcPorts[0]}
start_engined host ${rpcPorts[1]}
mark adapter
wait_go down
/bin/ip link set roce0 down
mark down
wait_go over
engined_lives target
engined_lives host
`;
}
