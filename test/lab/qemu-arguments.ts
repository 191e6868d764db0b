// SPDX-License-Identifier: Apache-2.0
// The emulator's command line. Pure. Always software emulation: /dev/kvm may open and still be useless on a machine that is
// itself a guest.

import { scriptFwCfgName } from './init.js';

export interface QemuOptions {
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly scriptPath: string;
  /** A listening Unix socket; the emulator connects the guest's control line (ttyS1) to it. */
  readonly controlSocketPath: string;
  readonly memoryMib: number;
  readonly cpus: number;
  /** TCP ports of 127.0.0.1 on the machine that lead into the guest. */
  readonly forwards: readonly PortForward[];
}

export interface PortForward {
  readonly machinePort: number;
  readonly guestPort: number;
}

const kernelCommandLine = [
  'console=ttyS0',
  'quiet',
  'panic=-1',
  'mitigations=off',
  'nokaslr',
  'tsc=reliable',
  'no_timer_check',
  'random.trust_cpu=on',
  'rcupdate.rcu_expedited=1',
  'audit=0',
  'selinux=0',
  'apparmor=0',
  'cryptomgr.notests',
  'rdinit=/init',
].join(' ');

export function qemuArguments(options: QemuOptions): string[] {
  const forwards = options.forwards.map(
    ({ machinePort, guestPort }) => `,hostfwd=tcp:127.0.0.1:${machinePort}-:${guestPort}`,
  );
  return [
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    '-no-reboot',
    '-machine',
    'q35,usb=off,vmport=off,hpet=off',
    '-accel',
    'tcg,thread=multi,tb-size=256',
    '-cpu',
    'max',
    '-smp',
    String(options.cpus),
    '-m',
    `${options.memoryMib}M`,
    '-kernel',
    options.kernelPath,
    '-initrd',
    options.initrdPath,
    '-append',
    kernelCommandLine,
    '-chardev',
    'stdio,id=console,signal=off',
    '-serial',
    'chardev:console',
    '-chardev',
    `socket,id=control,path=${escapeComma(options.controlSocketPath)}`,
    '-serial',
    'chardev:control',
    '-netdev',
    `user,id=net,ipv6=off${forwards.join('')}`,
    '-device',
    'virtio-net-pci,netdev=net,romfile=',
    '-fw_cfg',
    `name=${scriptFwCfgName},file=${escapeComma(options.scriptPath)}`,
  ];
}

/** In the emulator's option lists a comma inside a value is written twice. */
export function escapeComma(value: string): string {
  return value.replaceAll(',', ',,');
}
