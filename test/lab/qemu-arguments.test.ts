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
  forwards: [],
};

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
  const args = qemuArguments({ ...options, forwards: [{ machinePort: 5000, guestPort: 4420 }] });
  expect(valuesAfter(args, '-netdev')).toEqual(['user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:5000-:4420']);
});
