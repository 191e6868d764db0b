// SPDX-License-Identifier: Apache-2.0
//
// Which kernel driver has a PCI device.

import { existsSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path/posix';

export interface PciDriver {
  readonly present: boolean;
  /** Null: none has it. */
  readonly name: string | null;
}

/** `root` is where the kernel shows the devices of the bus. */
export function pciDriver(address: string, root = '/sys/bus/pci/devices'): PciDriver {
  const device = join(root, address.toLowerCase());
  if (!existsSync(device)) return { present: false, name: null };
  try {
    return { present: true, name: basename(readlinkSync(join(device, 'driver'))) };
  } catch {
    return { present: true, name: null };
  }
}
