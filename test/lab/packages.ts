// SPDX-License-Identifier: Apache-2.0
// The distribution packages that the lab takes its tools from, on the machine and inside the guest.
// The set-up script reads the same list (`tsx test/lab/prepare.ts --missing`), so there is one place to add a tool.

import { constants } from 'node:fs';
import { access, readFile } from 'node:fs/promises';
import { LabError } from './errors.js';

export interface LabPackage {
  readonly name: string;
  /** A file that is there exactly when the package is installed. */
  readonly probe: string;
}

const everywhere: readonly LabPackage[] = [
  { name: 'qemu-system-x86', probe: '/usr/bin/qemu-system-x86_64' },
  { name: 'busybox-static', probe: '/bin/busybox' },
  { name: 'cpio', probe: '/usr/bin/cpio' },
  { name: 'kmod', probe: '/usr/bin/kmod' },
  { name: 'xz-utils', probe: '/usr/bin/xz' },
  { name: 'zstd', probe: '/usr/bin/zstd' },
  { name: 'e2fsprogs', probe: '/usr/sbin/e2fsck' },
  { name: 'nvme-cli', probe: '/usr/sbin/nvme' },
  { name: 'fio', probe: '/usr/bin/fio' },
  // Backports are verified with Debian's keys.
  { name: 'debian-archive-keyring', probe: '/usr/share/keyrings/debian-archive-keyring.gpg' },
];

export function labPackages(): readonly LabPackage[] {
  return everywhere;
}

export interface Distribution {
  readonly id: string;
  readonly versionId: string;
}

export function parseOsRelease(text: string): Distribution {
  const field = (name: string): string => {
    const match = new RegExp(`^${name}=["']?([^"'\\n]*)["']?$`, 'm').exec(text);
    return match?.[1] ?? '';
  };
  return { id: field('ID'), versionId: field('VERSION_ID') };
}

export function isDebian12(distribution: Distribution): boolean {
  return distribution.id === 'debian' && distribution.versionId === '12';
}

export async function readDistribution(): Promise<Distribution> {
  return parseOsRelease(await readFile('/etc/os-release', 'utf8'));
}

export async function missingPackages(): Promise<string[]> {
  const missing: string[] = [];
  for (const entry of labPackages()) {
    try {
      await access(entry.probe, constants.R_OK);
    } catch {
      missing.push(entry.name);
    }
  }
  return missing;
}

export function installCommand(names: readonly string[]): string {
  return `apt-get install -y --no-install-recommends ${names.join(' ')}`;
}

/** @throws {LabError} LAB_PACKAGES_MISSING with the command to run */
export async function requirePackages(): Promise<void> {
  const missing = await missingPackages();
  if (missing.length > 0) {
    throw new LabError(
      'LAB_PACKAGES_MISSING',
      `the guest lab needs ${missing.join(', ')}; as root: ${installCommand(missing)}`,
    );
  }
}
