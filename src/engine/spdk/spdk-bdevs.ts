// SPDX-License-Identifier: Apache-2.0
//
// Which bdev of an SPDK is the disk that the configuration names: one that it has already, or one made now.
//
//   /dev/sdb, /var/lib/disk.img   a block device or file, by libaio
//   0000:5e:00.0                  an NVMe drive that its user-space driver takes, with one namespace
//   anything else                 the name of a bdev that SPDK was configured with
//
// Only bdevs whose flush reaches the device are taken: SPDK answers Flush with success where a bdev has none.

import { type PciDriver, pciDriver } from '../../env/pci.js';
import { EngineError, engineErrorCodes } from '../errors.js';

/** SPDK's JSON-RPC, with whatever methods it has. */
export interface SpdkPort {
  call(method: string, params: object): Promise<unknown>;
}

/** As bdev_get_bdevs describes it; only what is looked at. */
export interface SpdkBdev {
  readonly name: string;
  readonly product_name: string;
  readonly block_size: number;
  readonly num_blocks: number;
  readonly claimed?: boolean;
  readonly md_size?: number;
  readonly driver_specific?: {
    readonly aio?: { readonly filename?: string; readonly readonly?: boolean };
    readonly nvme?: readonly { readonly pci_address?: string }[];
  };
}

/** By product name; what each does on Flush was read in its source. */
const productsWithFlush = ['AIO disk', 'URING bdev', 'NVMe disk'];
const blockSizes = [512, 4096];
const pciPattern = /^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i;

/** @throws {EngineError} saying in one line why it is not to be had */
export async function spdkBdevOf(
  spdk: SpdkPort,
  path: string,
  driverOf: (address: string) => PciDriver = pciDriver,
): Promise<SpdkBdev> {
  const bdev = await findOrMake(spdk, path, driverOf);
  const problem = problemOf(bdev);
  if (problem !== null) throw new EngineError(engineErrorCodes.invalid, 'spdk', `bdev ${bdev.name} ${problem}`);
  return bdev;
}

export async function spdkBdevs(spdk: SpdkPort): Promise<SpdkBdev[]> {
  return (await spdk.call('bdev_get_bdevs', {})) as SpdkBdev[];
}

async function findOrMake(spdk: SpdkPort, path: string, driverOf: (address: string) => PciDriver): Promise<SpdkBdev> {
  const known = await spdkBdevs(spdk);
  if (path.startsWith('/')) {
    const open = known.find((bdev) => bdev.driver_specific?.aio?.filename === path);
    if (open !== undefined) return open;
    const name = `basalt:${path}`;
    await spdk.call('bdev_aio_create', { name, filename: path, block_size: 4096 });
    return named(await spdkBdevs(spdk), name);
  }
  if (pciPattern.test(path)) {
    const taken = known.filter((bdev) => bdev.driver_specific?.nvme?.some(({ pci_address }) => pci_address === path));
    return only(taken.length > 0 ? taken : await takeDrive(spdk, path, driverOf), path);
  }
  return named(known, path);
}

async function takeDrive(
  spdk: SpdkPort,
  address: string,
  driverOf: (address: string) => PciDriver,
): Promise<SpdkBdev[]> {
  const driver = driverOf(address);
  if (!driver.present) throw refusal('noDevice', `there is no PCI device ${address}`);
  if (driver.name === 'nvme')
    throw refusal('busy', `${address} is bound to the kernel's nvme driver: bind it to vfio-pci (docs/spdk.md)`);
  const params = { name: `basalt:${address}`, trtype: 'PCIe', traddr: address };
  const names = (await spdk.call('bdev_nvme_attach_controller', params)) as string[];
  const all = await spdkBdevs(spdk);
  return names.map((name) => named(all, name));
}

function only(bdevs: readonly SpdkBdev[], address: string): SpdkBdev {
  const [bdev] = bdevs;
  if (bdev === undefined) throw refusal('noDevice', `${address} has no namespace`);
  if (bdevs.length > 1)
    throw refusal(
      'invalid',
      `${address} has ${bdevs.length} namespaces: name one of ${bdevs.map((each) => each.name).join(', ')}`,
    );
  return bdev;
}

function named(bdevs: readonly SpdkBdev[], name: string): SpdkBdev {
  const bdev = bdevs.find((each) => each.name === name);
  if (bdev === undefined) throw refusal('noDevice', `SPDK has no bdev ${name}`);
  return bdev;
}

function problemOf(bdev: SpdkBdev): string | null {
  if (!productsWithFlush.includes(bdev.product_name))
    return `is a '${bdev.product_name}', whose flush is not known to reach a device; it must be one of ${productsWithFlush.join(', ')}`;
  if (bdev.driver_specific?.aio?.readonly === true) return 'is read-only';
  if (!blockSizes.includes(bdev.block_size))
    return `has blocks of ${bdev.block_size} bytes; they must have 512 or 4096`;
  if ((bdev.md_size ?? 0) > 0) return `has ${bdev.md_size} bytes of metadata per block; it must have none`;
  return null;
}

function refusal(name: keyof typeof engineErrorCodes, message: string): EngineError {
  return new EngineError(engineErrorCodes[name], 'spdk', message);
}
