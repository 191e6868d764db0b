// SPDX-License-Identifier: Apache-2.0
// The emulator's command line. Pure. Always software emulation: /dev/kvm may open and still be useless on a machine that is
// itself a guest.

import { addressParameter, scriptFwCfgName } from './init.js';

export interface QemuOptions {
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly scriptPath: string;
  /** A listening Unix socket; the emulator connects the guest's control line (ttyS1) to it. */
  readonly controlSocketPath: string;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly network: GuestNetwork;
  readonly devices: readonly GuestDevice[];
}

export interface PortForward {
  readonly machinePort: number;
  readonly guestPort: number;
}

/**
 * `user`: behind the emulator, addresses of network.ts, with TCP ports of 127.0.0.1 on the machine that lead into the guest.
 * `tap`: a host of its own on a tap device that is there already, with this address of a /24.
 */
export type GuestNetwork =
  | { readonly kind: 'user'; readonly forwards: readonly PortForward[] }
  | { readonly kind: 'tap'; readonly device: string; readonly address: string; readonly mac: string };

/** What is plugged in besides the network: a file of the machine as a disk, or a vhost-user-blk server's socket. */
export type GuestDevice =
  | { readonly kind: 'disk'; readonly path: string }
  | { readonly kind: 'vhost-user-blk'; readonly socketPath: string; readonly queues: number };

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
  const { network, devices } = options;
  const address = network.kind === 'tap' ? ` ${addressParameter}=${network.address}` : '';
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
    `${kernelCommandLine}${address}`,
    '-chardev',
    'stdio,id=console,signal=off',
    '-serial',
    'chardev:console',
    '-chardev',
    `socket,id=control,path=${escapeComma(options.controlSocketPath)}`,
    '-serial',
    'chardev:control',
    ...networkArguments(network),
    '-fw_cfg',
    `name=${scriptFwCfgName},file=${escapeComma(options.scriptPath)}`,
    ...devices.flatMap((device, index) => deviceArguments(device, index)),
    ...(devices.some((device) => device.kind === 'vhost-user-blk') ? sharedMemory(options.memoryMib) : []),
  ];
}

function networkArguments(network: GuestNetwork): string[] {
  if (network.kind === 'tap') {
    const netdev = `tap,id=net,ifname=${network.device},script=no,downscript=no,vhost=off`;
    return ['-netdev', netdev, '-device', `virtio-net-pci,netdev=net,romfile=,mac=${network.mac}`];
  }
  const forwards = network.forwards.map(
    ({ machinePort, guestPort }) => `,hostfwd=tcp:127.0.0.1:${machinePort}-:${guestPort}`,
  );
  return ['-netdev', `user,id=net,ipv6=off${forwards.join('')}`, '-device', 'virtio-net-pci,netdev=net,romfile='];
}

function deviceArguments(device: GuestDevice, index: number): string[] {
  if (device.kind === 'disk') {
    const drive = `file=${escapeComma(device.path)},format=raw,if=none,id=disk${index},cache=none,discard=unmap`;
    return ['-drive', drive, '-device', `virtio-blk-pci,drive=disk${index}`];
  }
  return [
    '-chardev',
    `socket,id=vhost${index},path=${escapeComma(device.socketPath)}`,
    '-device',
    `vhost-user-blk-pci,chardev=vhost${index},num-queues=${device.queues}`,
  ];
}

/** A vhost-user server maps the guest's memory. */
function sharedMemory(memoryMib: number): string[] {
  return ['-object', `memory-backend-memfd,id=mem,size=${memoryMib}M,share=on`, '-numa', 'node,memdev=mem'];
}

/** In the emulator's option lists a comma inside a value is written twice. */
export function escapeComma(value: string): string {
  return value.replaceAll(',', ',,');
}
