// SPDX-License-Identifier: Apache-2.0
// Pieces of guest scripts that look a volume over with nvme-cli: who may connect, what discovery shows, what the two
// controllers say about themselves, and how odd commands are answered. Put into failoverScript() by failover.e2e.ts.

import { machineAddress } from '../lab/network.js';
import { connectCommand, type NvmePath } from './guest-scripts.js';

export const strangerNqn = 'nqn.2014-08.org.nvmexpress:uuid:00000000-1111-4222-8333-444444444444';
const strangerId = '00000000-1111-4222-8333-444444444444';

/**
 * Before the host connects: discovery as the attached host and as a stranger, and the stranger's connect, which must be
 * refused for its name.
 * Hands back: discovery, discovery_stranger (JSON).
 */
export function strangerScript(nqn: string, path: NvmePath): string {
  const discover = `nvme discover -t tcp -a ${path.address ?? machineAddress} -s ${path.port} -o json`;
  const stranger = `--hostnqn=${strangerNqn} --hostid=${strangerId}`;
  return `
modprobe nvme_tcp
step "discovery and a stranger"
${discover} >/run/discovery 2>&1 || { cat /run/discovery; fail "discover"; }
value_file discovery /run/discovery
${discover} ${stranger} >/run/discovery_stranger 2>&1 || { cat /run/discovery_stranger; fail "discover as a stranger"; }
value_file discovery_stranger /run/discovery_stranger
dmesg -c >/dev/null
${connectCommand(nqn, path)} ${stranger} && fail "a host that was not attached was let in"
dmesg | grep -q 'is not allowed, hostnqn: ${strangerNqn}' || { dmesg; fail "the refusal does not name the host"; }
dmesg -c >/dev/null
`;
}

/**
 * With both paths connected: what each controller and the namespace say. `$disk` is the multipath device; I/O commands go to it,
 * admin commands to each controller.
 * Hands back: list; controllers (how many there are), and of controller N = 0, 1: id_ctrl_N id_ns_N ns_descs_N
 * smart_log_N error_log_N ana_log_N effects_log_N fw_log_N (all JSON), ana_nsid_N (the number in the ANA log's last word);
 * driver (what the host's NVMe driver said since the stranger); odd_COMMAND (what nvme-cli says of a command that must be refused).
 */
export const inspectionScript = `
step "what the controllers say"
dmesg | grep 'nvme nvme[0-9]' >/run/driver
value_file driver /run/driver
nvme list -o json >/run/list || fail "list"
value_file list /run/list
_n=0
for _sys in /sys/class/nvme/nvme*; do
  _ctrl=/dev/\${_sys##*/}
  say() { # NAME COMMAND...: a command that must succeed, its output handed back
    _name=$1_$_n; shift
    "$@" -o json >/run/said 2>/run/said_err || { cat /run/said /run/said_err; fail "$*"; }
    value_file "$_name" /run/said
  }
  say id_ctrl nvme id-ctrl $_ctrl
  say id_ns nvme id-ns $_ctrl -n 1
  say ns_descs nvme ns-descs $_ctrl -n 1
  say smart_log nvme smart-log $_ctrl
  say error_log nvme error-log $_ctrl
  say ana_log nvme ana-log $_ctrl
  nvme get-log $_ctrl -i 0x0c -l 52 -b >/run/said || fail "get-log 0x0c"
  value ana_nsid_$_n "$(tail -c 4 /run/said | od -An -tu4 | tr -d ' ')"
  say effects_log nvme effects-log $_ctrl -c 0 # this nvme-cli looks for the command set in PCI registers otherwise
  say fw_log nvme fw-log $_ctrl
  _n=$((_n + 1))
done
value controllers $_n
step "passed-through commands"
nvme flush "$disk" -n 1 || fail "flush"
dd if=/dev/urandom of=/run/block bs=4096 count=1 2>/dev/null
nvme write "$disk" -s 7 -c 0 -z 4096 -d /run/block || fail "write"
nvme read "$disk" -s 7 -c 0 -z 4096 -d /run/block_read || fail "read"
cmp /run/block /run/block_read || fail "a written block reads back otherwise"
nvme compare "$disk" -s 7 -c 0 -z 4096 -d /run/block || fail "compare with the same"
nvme get-feature "$disk" -f 6 >/dev/null || fail "get-feature 6"
odd() { # NAME COMMAND...: a command that must be refused
  _name=odd_$1; shift
  "$@" >/run/said 2>&1 && { cat /run/said; fail "accepted: $*"; }
  value "$_name" "$(tr '\\n' ' ' </run/said)"
}
_ctrl=/dev/$(ls /sys/class/nvme | head -n 1)
dd if=/dev/urandom of=/run/other bs=4096 count=1 2>/dev/null
odd compare nvme compare "$disk" -s 7 -c 0 -z 4096 -d /run/other
odd beyond nvme read "$disk" -s 0xffffffffff -c 0 -z 4096 -d /run/block_read
odd admin_opcode nvme admin-passthru $_ctrl --opcode=0xc1
odd io_opcode nvme io-passthru "$disk" -n 1 --opcode=0xc1
odd log nvme get-log $_ctrl -i 0xc5 -l 512
odd feature nvme get-feature $_ctrl -f 0xc5
odd identify nvme admin-passthru $_ctrl --opcode=6 --cdw10=0xee -l 4096 -r
odd namespace nvme id-ns $_ctrl -n 77
# Only the extended form holds host identifiers of 128 bits.
odd reservation nvme resv-report "$disk" -n 1
`;

/**
 * The host reserves the volume for itself alone; everything that follows in the script it does as the holder.
 * Hands back: resv_before (nvme resv-report).
 */
export const reserveScript = `
step "a reservation"
resv_report() { nvme resv-report "$disk" -n 1 --eds >/run/resv 2>&1 || { cat /run/resv; fail "resv-report"; }; cat /run/resv; }
nvme resv-register "$disk" -n 1 --nrkey=0x1234 --rrega=0 --cptpl=3 || fail "resv-register"
nvme resv-acquire "$disk" -n 1 --crkey=0x4321 --rtype=1 --racqa=0 && fail "acquired with another key"
nvme resv-acquire "$disk" -n 1 --crkey=0x1234 --rtype=1 --racqa=0 || fail "resv-acquire"
resv_report
value_file resv_before /run/resv
`;

/**
 * Through the other controller, after the one that took the reservation was killed: it is the same; then it is given up.
 * Hands back: resv_after, resv_cleared.
 */
export const stillReservedScript = `
step "the reservation through the other controller"
resv_report
value_file resv_after /run/resv
nvme resv-release "$disk" -n 1 --crkey=0x1234 --rtype=1 --rrela=0 || fail "resv-release"
nvme resv-register "$disk" -n 1 --crkey=0x1234 --rrega=1 || fail "resv-register, to be forgotten"
resv_report
value_file resv_cleared /run/resv
`;
