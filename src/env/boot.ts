// SPDX-License-Identifier: Apache-2.0
//
// Which boot of the machine this is: what tells a process that ended from a machine that lost its memory and the caches
// of its disks.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** 8 hexadecimal digits, the same until the kernel starts again; null where the kernel does not tell. */
export function bootTag(path = '/proc/sys/kernel/random/boot_id'): string | null {
  let id: string;
  try {
    id = readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
  return id === '' ? null : createHash('sha256').update(id).digest('hex').slice(0, 8);
}
