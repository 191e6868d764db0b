// SPDX-License-Identifier: Apache-2.0
// Debian's stock kernels for the guest: bookworm's own and the newer one of bookworm-backports, downloaded and unpacked.

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Apt, type DebianPackage, type Progress, type Suite, unreachable } from './apt.js';
import { mustRun } from './command.js';
import { LabError } from './errors.js';
import { type Distribution, isDebian12 } from './packages.js';

const metaPackage = 'linux-image-amd64';

/** Kernels of one series. */
export type KernelSeries = '6.1' | '6.12';

interface KernelSource {
  readonly suite: Suite;
  /** What the metapackage may stand for. */
  readonly pattern: RegExp;
}

const sources: Readonly<Record<KernelSeries, KernelSource>> = {
  '6.1': { suite: 'bookworm', pattern: /^linux-image-6\.1\.\d+-\d+-amd64$/ },
  '6.12': { suite: 'bookworm-backports', pattern: /^linux-image-6\.12\.[\d.]+\+deb12-amd64$/ },
};
export const kernelSeries = Object.keys(sources) as readonly KernelSeries[];

/**
 * Path of the kernel's .deb in the cache, downloaded when it is not there yet.
 * @throws {LabError} LAB_MIRROR_UNREACHABLE naming the mirror
 */
export async function fetchKernel(
  cacheDir: string,
  series: KernelSeries,
  options: { distribution: Distribution; progress: Progress },
): Promise<{ kernel: DebianPackage; debPath: string }> {
  const debDir = join(cacheDir, 'debs');
  await mkdir(debDir, { recursive: true });
  const { suite } = sources[series];
  const machines = suite === 'bookworm' && isDebian12(options.distribution);
  const first = machines ? Apt.machine() : await Apt.own(cacheDir, suite, options);
  const found = await kernelOf(first, series, debDir, options.progress);
  if (found.debPath !== null && found.kernel !== null) return { kernel: found.kernel, debPath: found.debPath };
  options.progress(`the package lists do not lead to kernel ${series} any more; reading fresh ones`);
  const fresh = await Apt.own(cacheDir, suite, { ...options, fresh: true });
  const again = await kernelOf(fresh, series, debDir, options.progress);
  if (again.kernel === null)
    throw new LabError('LAB_MIRROR_UNREACHABLE', `${metaPackage} (${series}) is not in ${suite} of the apt sources`);
  if (again.debPath === null) throw unreachable(`downloading ${again.kernel.name}`, again.output);
  return { kernel: again.kernel, debPath: again.debPath };
}

async function kernelOf(
  apt: Apt,
  series: KernelSeries,
  debDir: string,
  progress: Progress,
): Promise<{ kernel: DebianPackage | null; debPath: string | null; output: string }> {
  const kernel = await apt.behind(metaPackage);
  if (kernel === null || !isOfSeries(series, kernel.name)) return { kernel: null, debPath: null, output: '' };
  progress(`kernel ${kernel.name} ${kernel.version}`);
  const { path, output } = await apt.download(debDir, kernel);
  return { kernel, debPath: path, output };
}

export function isOfSeries(series: KernelSeries, packageName: string): boolean {
  return sources[series].pattern.test(packageName);
}

/** Unpacks the package and answers the kernel's release, for instance 6.1.0-56-amd64. */
export async function unpackKernel(debPath: string, intoDir: string): Promise<string> {
  await mustRun('dpkg', ['-x', debPath, intoDir]);
  const releases = await readdir(join(intoDir, 'lib', 'modules'));
  const release = releases[0];
  if (releases.length !== 1 || release === undefined) {
    throw new LabError('LAB_IMAGE_BROKEN', `${debPath} holds ${releases.length} kernels, expected one`);
  }
  return release;
}

const payloadMagics = [
  { magic: Buffer.from('fd377a585a00', 'hex'), program: 'xz' },
  { magic: Buffer.from('28b52ffd', 'hex'), program: 'zstd' },
] as const;

export interface KernelPayload {
  readonly program: 'xz' | 'zstd';
  readonly compressed: Buffer;
}

/**
 * The compressed ELF image inside a bzImage. Offsets are those of the x86 boot protocol's setup header (setup_sects,
 * payload_offset, payload_length); the last four bytes of the payload are its unpacked size, not compressed data.
 */
export function kernelPayload(bzImage: Buffer): KernelPayload | null {
  if (bzImage.length < 0x250 || bzImage.toString('latin1', 0x202, 0x206) !== 'HdrS') {
    return null;
  }
  const setupSectors = bzImage.readUInt8(0x1f1) === 0 ? 4 : bzImage.readUInt8(0x1f1);
  const start = (setupSectors + 1) * 512 + bzImage.readUInt32LE(0x248);
  const end = start + bzImage.readUInt32LE(0x24c) - 4;
  if (end > bzImage.length || end <= start) {
    return null;
  }
  const compressed = bzImage.subarray(start, end);
  const known = payloadMagics.find(({ magic }) => compressed.subarray(0, magic.length).equals(magic));
  return known === undefined ? null : { program: known.program, compressed };
}

/** Booting the unpacked ELF spares the guest the unpacking under emulation: two seconds of every boot. */
export async function extractVmlinux(vmlinuzPath: string, intoPath: string): Promise<void> {
  const payload = kernelPayload(await readFile(vmlinuzPath));
  if (payload === null) {
    throw new LabError('LAB_IMAGE_BROKEN', `${vmlinuzPath}: no xz or zstd payload`);
  }
  await writeFile(intoPath, await mustRun(payload.program, ['-dc'], { input: payload.compressed }));
}
