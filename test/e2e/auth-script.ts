// SPDX-License-Identifier: Apache-2.0
// The shell script of the authentication suite. Pure: options in, script text out.

import { machineAddress } from '../lab/network.js';
import { type NvmePath, nvmeFunctions } from './guest-scripts.js';

export interface AuthStep {
  readonly name: string;
  /** What the target offers meanwhile. */
  readonly digest: string;
  readonly group: string;
  readonly host?: string;
  /** The host wants proof of the controller. */
  readonly controller?: string;
  /** It must not connect. */
  readonly refused?: boolean;
  /** It authenticates once more while it is connected. */
  readonly again?: boolean;
}

export interface AuthScriptOptions {
  readonly nqn: string;
  readonly path: NvmePath;
  readonly steps: readonly AuthStep[];
}

/** Each step waits for GO begin-NAME after MARK ready-NAME, and hands back `driver_NAME`: what the host's driver said. */
export function authScript({ nqn, path, steps }: AuthScriptOptions): string {
  return `${nvmeFunctions}
modprobe nvme_tcp
grep -q dhchap_secret /dev/nvme-fabrics || fail "this kernel has no authentication"
attempt() {
  nvme connect -t tcp -a ${path.address ?? machineAddress} -s ${path.port} -n ${nqn} --nr-io-queues=1 \\
    --reconnect-delay=1 --ctrl-loss-tmo=5 "$@"
}
controller_dir() {
  for _d in /sys/class/nvme/nvme*; do
    [ "$(cat "$_d/subsysnqn" 2>/dev/null)" = ${nqn} ] && { echo "$_d"; return 0; }
  done
  return 1
}
no_controller() { ! controller_dir >/dev/null; }
authenticated_times() { [ "$(dmesg | grep -c 'qid 0: authenticated')" -ge "$1" ]; }
${steps.map((step) => stepScript(nqn, step)).join('')}
step done
`;
}

export interface ClusterAuthOptions {
  readonly nqn: string;
  /** What the command line printed for the host, a line for each path. */
  readonly lines: readonly string[];
  /** Files that the lines name: path → text. */
  readonly files: ReadonlyMap<string, string>;
}

/** Runs what was printed and nothing else. Waits for GO `killed` after MARK `connected`, when the active path is gone. */
export function clusterAuthScript({ nqn, lines, files }: ClusterAuthOptions): string {
  const made = [...files].map(
    ([path, text]) => `mkdir -p "$(dirname ${path})" && echo '${text}' >${path} && chmod 600 ${path}`,
  );
  // The machine's own address is another one from in here.
  const connects = lines.map((line) => line.replace(/ -a \S+/, ` -a ${machineAddress}`));
  const without = (connects[0] ?? '').replace(/ --dhchap.*$/, '');
  return `${nvmeFunctions}
modprobe nvme_tcp
grep -q dhchap_secret /dev/nvme-fabrics || fail "this kernel has no authentication"
${made.join('\n')}
step refused
if ${without}; then fail "it connected without a secret"; fi
no_disk ${nqn} || fail "there is a disk"
step connect
dmesg -c >/dev/null
${connects.map((line) => `${line}\n[ $? = 0 ] || { dmesg | tail -n 20; fail "connect"; }`).join('\n')}
until_ok 60 have_disk ${nqn} || fail "no block device"
disk=$(nvme_disk ${nqn})
dmesg | grep 'nvme nvme[0-9]' >/run/driver
value_file driver /run/driver
dd if=/dev/urandom of=/run/pattern bs=4096 count=64 2>/dev/null
dd if=/run/pattern of="$disk" bs=4096 count=64 oflag=direct 2>/dev/null || fail "write"
step failover
mark connected
wait_go killed 120
dd if=/run/pattern of="$disk" bs=4096 count=64 seek=64 oflag=direct 2>/dev/null || fail "write after the failover"
dd if="$disk" of=/run/read bs=4096 count=64 skip=64 iflag=direct 2>/dev/null || fail "read after the failover"
cmp /run/pattern /run/read || fail "other data"
dd if="$disk" of=/run/read bs=4096 count=64 iflag=direct 2>/dev/null || fail "read"
cmp /run/pattern /run/read || fail "other data from before"
host_is_clean
nvme disconnect -n ${nqn} || fail "disconnect"
step done
`;
}

function stepScript(nqn: string, step: AuthStep): string {
  const secrets =
    (step.host === undefined ? '' : ` --dhchap-secret='${step.host}'`) +
    (step.controller === undefined ? '' : ` --dhchap-ctrl-secret='${step.controller}'`);
  const begin = `
step ${step.name}
dmesg -c >/dev/null
mark ready-${step.name}
wait_go begin-${step.name} 60
`;
  const end = `dmesg | grep 'nvme nvme[0-9]' >/run/driver
value_file driver_${step.name} /run/driver
host_is_clean
`;
  if (step.refused === true) {
    return `${begin}if attempt${secrets}; then fail "${step.name}: it connected"; fi
until_ok 30 no_controller || fail "${step.name}: a controller stayed"
no_disk ${nqn} || fail "${step.name}: there is a disk"
${end}`;
  }
  const again = `directory=$(controller_dir) || fail "${step.name}: no controller"
cat "$directory/dhchap_secret" >/run/secret
cat /run/secret >"$directory/dhchap_secret" || fail "${step.name}: writing the secret"
until_ok 60 authenticated_times 2 || { dmesg | tail -n 20; fail "${step.name}: no second authentication"; }
dd if=/run/pattern of="$disk" bs=4096 count=4 oflag=direct 2>/dev/null || fail "${step.name}: write after it"
`;
  return `${begin}attempt${secrets} || { dmesg | tail -n 20; fail "${step.name}: connect"; }
until_ok 30 have_disk ${nqn} || fail "${step.name}: no block device"
disk=$(nvme_disk ${nqn})
dd if=/dev/urandom of=/run/pattern bs=4096 count=4 2>/dev/null
dd if=/run/pattern of="$disk" bs=4096 count=4 oflag=direct 2>/dev/null || fail "${step.name}: write"
dd if="$disk" of=/run/read bs=4096 count=4 iflag=direct 2>/dev/null || fail "${step.name}: read"
cmp /run/pattern /run/read || fail "${step.name}: other data"
${step.again === true ? again : ''}nvme disconnect -n ${nqn} || fail "${step.name}: disconnect"
until_ok 30 no_controller || fail "${step.name}: the controller stayed"
${end}`;
}
