// SPDX-License-Identifier: Apache-2.0

import { expect, test } from 'vitest';
import { qemuArguments } from './qemu-arguments.js';

const options = {
  kernelPath: '/k/vmlinux',
  initrdPath: '/k/initrd.cpio',
  scriptPath: '/tmp/a,b/script.sh',
  controlSocketPath: '/tmp/a,b/control.sock',
  memoryMib: 512,
  cpus: 2,
  network: { kind: 'user', forwards: [] },
  devices: [],
} as const;

function valuesAfter(args: readonly string[], name: string): string[] {
  return args.flatMap((arg, index) => (arg === name ? [args[index + 1] ?? ''] : []));
}

test('the guest always runs in software emulation with its console first and its control line second', () => {
  const args = qemuArguments(options);
  expect(valuesAfter(args, '-accel')).toEqual(['tcg,thread=multi,tb-size=256']);
  expect(valuesAfter(args, '-serial')).toEqual(['chardev:console', 'chardev:control']);
  expect(valuesAfter(args, '-append')[0]).toContain('console=ttyS0');
  expect(valuesAfter(args, '-m')).toEqual(['512M']);
});

test('a comma in a path does not end the option', () => {
  const args = qemuArguments(options);
  expect(valuesAfter(args, '-fw_cfg')[0]).toBe('name=opt/basalt/script,file=/tmp/a,,b/script.sh');
  expect(valuesAfter(args, '-chardev')[1]).toBe('socket,id=control,path=/tmp/a,,b/control.sock');
});

test('forwarded ports are open on the loopback address only', () => {
  const args = qemuArguments({
    ...options,
    network: { kind: 'user', forwards: [{ machinePort: 5000, guestPort: 4420 }] },
  });
  expect(valuesAfter(args, '-netdev')).toEqual(['user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:5000-:4420']);
});

test('a host of its own has its address on the kernel command line', () => {
  const network = { kind: 'tap', device: 'tap3', address: '127.77.0.3', mac: '52:54:00:00:00:03' } as const;
  const args = qemuArguments({ ...options, network });
  expect(valuesAfter(args, '-append')[0]).toMatch(/ basalt\.address=127\.77\.0\.3$/);
  expect(valuesAfter(args, '-netdev')).toEqual(['tap,id=net,ifname=tap3,script=no,downscript=no,vhost=off']);
});

test('a vhost-user disk shares the memory of the guest, all of it', () => {
  const args = qemuArguments({ ...options, devices: [{ kind: 'vhost-user-blk', socketPath: '/s/vub', queues: 2 }] });
  expect(valuesAfter(args, '-device')).toContain('vhost-user-blk-pci,chardev=vhost0,num-queues=2');
  expect(valuesAfter(args, '-object')).toEqual(['memory-backend-memfd,id=mem,size=512M,share=on']);
  expect(valuesAfter(qemuArguments(options), '-object')).toEqual([]);
});
