// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import type { PciDriver } from '../../env/pci.js';
import { type SpdkBdev, spdkBdevOf } from './spdk-bdevs.js';

const aio = (name: string, filename: string, more: Partial<SpdkBdev> = {}): SpdkBdev => ({
  name,
  product_name: 'AIO disk',
  block_size: 4096,
  num_blocks: 1024,
  driver_specific: { aio: { filename, readonly: false } },
  ...more,
});
const drive = (name: string, pci_address: string, more: Partial<SpdkBdev> = {}): SpdkBdev => ({
  name,
  product_name: 'NVMe disk',
  block_size: 512,
  num_blocks: 1024,
  driver_specific: { nvme: [{ pci_address }] },
  ...more,
});

/** An SPDK with these bdevs; `makes` is what a drive that it takes brings. */
class Bdevs {
  readonly calls: string[] = [];
  constructor(
    readonly bdevs: SpdkBdev[],
    readonly makes: SpdkBdev[] = [],
  ) {}

  call(method: string, params: object): Promise<unknown> {
    const { name = '', filename = '' } = params as { name?: string; filename?: string };
    if (method === 'bdev_get_bdevs') return Promise.resolve([...this.bdevs]);
    this.calls.push(method);
    const made = method === 'bdev_aio_create' ? [aio(name, filename)] : this.makes;
    this.bdevs.push(...made);
    return Promise.resolve(method === 'bdev_aio_create' ? name : made.map((bdev) => bdev.name));
  }
}

const vfio = (): PciDriver => ({ present: true, name: 'vfio-pci' });
const address = '0000:5e:00.0';

describe('the bdev of a disk', () => {
  it('is what SPDK has already, or is made once', async () => {
    const spdk = new Bdevs([aio('mine', '/dev/sdb'), drive('Nvme0n1', address)]);
    expect((await spdkBdevOf(spdk, '/dev/sdb')).name).toBe('mine');
    expect((await spdkBdevOf(spdk, address, vfio)).name).toBe('Nvme0n1');
    expect((await spdkBdevOf(spdk, 'Nvme0n1')).name).toBe('Nvme0n1');
    expect(spdk.calls).toEqual([]);
    expect((await spdkBdevOf(spdk, '/dev/sdc')).name).toBe('basalt:/dev/sdc');
    expect((await spdkBdevOf(spdk, '/dev/sdc')).name).toBe('basalt:/dev/sdc');
    expect(spdk.calls).toEqual(['bdev_aio_create']);
  });

  it('of a drive is its only namespace', async () => {
    const one = new Bdevs([], [drive('basalt:0n1', address)]);
    expect((await spdkBdevOf(one, address, vfio)).name).toBe('basalt:0n1');
    expect(one.calls).toEqual(['bdev_nvme_attach_controller']);
    const two = new Bdevs([], [drive('a', address), drive('b', address)]);
    await expect(spdkBdevOf(two, address, vfio)).rejects.toThrow('has 2 namespaces: name one of a, b');
    await expect(spdkBdevOf(new Bdevs([]), address, vfio)).rejects.toThrow('has no namespace');
  });

  it('is refused in one line, before anything is made, when the drive is not to be had', async () => {
    const spdk = new Bdevs([]);
    const kernel = (): PciDriver => ({ present: true, name: 'nvme' });
    await expect(spdkBdevOf(spdk, address, kernel)).rejects.toThrow("bound to the kernel's nvme driver");
    const none = (): PciDriver => ({ present: false, name: null });
    await expect(spdkBdevOf(spdk, address, none)).rejects.toThrow(`there is no PCI device ${address}`);
    await expect(spdkBdevOf(spdk, 'Nvme9n1')).rejects.toThrow('SPDK has no bdev Nvme9n1');
    expect(spdk.calls).toEqual([]);
  });

  it.each<[string, Partial<SpdkBdev>, string]>([
    ['flush goes nowhere (an lvol)', { product_name: 'Logical Volume' }, "is a 'Logical Volume', whose flush"],
    ['flush goes nowhere (memory)', { product_name: 'Malloc disk' }, "is a 'Malloc disk', whose flush"],
    ['contents must not be changed', { driver_specific: { aio: { readonly: true } } }, 'is read-only'],
    ['blocks have an odd size', { block_size: 520 }, 'has blocks of 520 bytes'],
    ['blocks have metadata', { md_size: 8 }, 'has 8 bytes of metadata'],
  ])('is refused when its %s', async (_, more, message) => {
    const spdk = new Bdevs([aio('b', '/elsewhere', more)]);
    await expect(spdkBdevOf(spdk, 'b')).rejects.toThrow(message);
  });
});
