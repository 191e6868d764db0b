// SPDX-License-Identifier: Apache-2.0
// Debian's stock kernel for the guest: found through apt, downloaded (never installed), verified by apt, unpacked.
// The machine's apt configuration and lists stay as they are; when its lists are missing or stale, or the machine is no
// Debian 12, private lists under the cache are used instead. Works as an ordinary user.

import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CommandResult, mustRun, runCommand } from './command.js';
import { LabError } from './errors.js';
import { type Distribution, isDebian12 } from './packages.js';

const metaPackage = 'linux-image-amd64';
const stockKernel = /^linux-image-6\.1\.\d+-\d+-amd64$/;
const defaultMirror = 'http://deb.debian.org';
const networkOptions = ['-o', 'Acquire::http::Timeout=20', '-o', 'Acquire::Retries=2'];

export type Progress = (message: string) => void;

export interface KernelPackage {
  /** For instance linux-image-6.1.0-56-amd64. */
  readonly name: string;
  readonly version: string;
}

/** The concrete package that Debian's metapackage stands for, out of `apt-cache depends` and `apt-cache policy`. */
export function parseKernelPackage(depends: string, policyOf: string): KernelPackage | null {
  const name = /Depends:\s+(\S+)/.exec(depends)?.[1];
  const version = /Candidate:\s+(\S+)/.exec(policyOf)?.[1];
  if (name === undefined || version === undefined || version === '(none)' || !stockKernel.test(name)) {
    return null;
  }
  return { name, version };
}

/** apt writes an epoch's colon as %3a in file names. */
export function debFileName(kernel: KernelPackage): string {
  return `${kernel.name}_${kernel.version.replaceAll(':', '%3a')}_amd64.deb`;
}

/** Every mirror that a failed apt run complained about, else everything that it may have asked. */
export function mirrorsNamed(aptOutput: string): string {
  const hosts = new Set<string>();
  for (const match of aptOutput.matchAll(/https?:\/\/([^\s/']+)|resolve '([^']+)'|connect to (\S+):/g)) {
    hosts.add(match[1] ?? match[2] ?? match[3] ?? '');
  }
  return hosts.size > 0 ? [...hosts].join(', ') : 'the configured apt sources';
}

/**
 * Path of the kernel's .deb in the cache, downloaded when it is not there yet.
 * @throws {LabError} LAB_MIRROR_UNREACHABLE naming the mirror
 */
export async function fetchKernel(
  cacheDir: string,
  distribution: Distribution,
  progress: Progress,
): Promise<{ kernel: KernelPackage; debPath: string }> {
  const debDir = join(cacheDir, 'debs');
  await mkdir(debDir, { recursive: true });
  const own = isDebian12(distribution) ? await findKernel([]) : null;
  if (own !== null) {
    const found = await cachedOrDownloaded(debDir, own, [], progress);
    if (found.debPath !== null) {
      return { kernel: own, debPath: found.debPath };
    }
    progress(`the machine's package lists do not lead to ${own.name} any more; reading fresh ones`);
  }
  const privateApt = await refreshPrivateLists(cacheDir, distribution, progress);
  const fresh = await findKernel(privateApt);
  if (fresh === null) {
    throw new LabError('LAB_MIRROR_UNREACHABLE', `${metaPackage} (6.1) is in none of the apt sources`);
  }
  const found = await cachedOrDownloaded(debDir, fresh, privateApt, progress);
  if (found.debPath === null) {
    throw unreachable(`downloading ${fresh.name}`, found.output);
  }
  return { kernel: fresh, debPath: found.debPath };
}

async function findKernel(aptOptions: readonly string[]): Promise<KernelPackage | null> {
  const depends = await runCommand('apt-cache', [...aptOptions, 'depends', '--important', metaPackage]);
  const name = /Depends:\s+(\S+)/.exec(depends.stdout.toString())?.[1];
  if (name === undefined) {
    return null;
  }
  const policy = await runCommand('apt-cache', [...aptOptions, 'policy', name]);
  return parseKernelPackage(depends.stdout.toString(), policy.stdout.toString());
}

async function cachedOrDownloaded(
  debDir: string,
  kernel: KernelPackage,
  aptOptions: readonly string[],
  progress: Progress,
): Promise<{ debPath: string | null; output: string }> {
  const fileName = debFileName(kernel);
  const debPath = join(debDir, fileName);
  if ((await readdir(debDir)).includes(fileName)) {
    return { debPath, output: '' };
  }
  progress(`downloading ${kernel.name} ${kernel.version} (70 MB)`);
  const work = await mkdtemp(join(debDir, `partial-${process.pid}-`));
  try {
    const result = await runCommand(
      'apt-get',
      [
        ...aptOptions,
        ...networkOptions,
        '-o',
        'APT::Sandbox::User=root',
        'download',
        `${kernel.name}=${kernel.version}`,
      ],
      { cwd: work },
    );
    const arrived = (await readdir(work)).find((entry) => entry.endsWith('.deb'));
    if (result.exitCode !== 0 || arrived === undefined) {
      return { debPath: null, output: outputOf(result) };
    }
    await rename(join(work, arrived), debPath);
    return { debPath, output: '' };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function refreshPrivateLists(
  cacheDir: string,
  distribution: Distribution,
  progress: Progress,
): Promise<string[]> {
  const root = join(cacheDir, 'apt');
  await mkdir(join(root, 'lists', 'partial'), { recursive: true });
  await mkdir(join(root, 'cache', 'archives', 'partial'), { recursive: true });
  const options = ['-o', `Dir::State::lists=${join(root, 'lists')}`, '-o', `Dir::Cache=${join(root, 'cache')}`];
  if (!isDebian12(distribution)) {
    const sourceList = join(root, 'sources.list');
    await writeFile(sourceList, debianSources(process.env['BASALT_DEBIAN_MIRROR'] ?? defaultMirror));
    options.push('-o', `Dir::Etc::sourcelist=${sourceList}`, '-o', 'Dir::Etc::sourceparts=/dev/null');
    options.push('-o', 'APT::Architecture=amd64', '-o', 'APT::Architectures::=amd64');
  }
  progress('reading the package lists of Debian 12');
  const result = await runCommand('apt-get', [
    ...options,
    ...networkOptions,
    '-o',
    'APT::Sandbox::User=root',
    '-o',
    'APT::Update::Error-Mode=any',
    'update',
  ]);
  if (result.exitCode !== 0) {
    throw unreachable('reading the package lists', outputOf(result));
  }
  return options;
}

export function debianSources(mirror: string): string {
  const signed = '[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]';
  return [
    `deb ${signed} ${mirror}/debian bookworm main`,
    `deb ${signed} ${mirror}/debian-security bookworm-security main`,
    '',
  ].join('\n');
}

function outputOf(result: CommandResult): string {
  return `${result.stdout.toString()}\n${result.stderr}`;
}

function unreachable(doing: string, output: string): LabError {
  const complaints = output.split('\n').filter((line) => /^(E|W|Err)\b|^\s+(Could|Temporary)/.test(line));
  return new LabError(
    'LAB_MIRROR_UNREACHABLE',
    `${doing} failed at ${mirrorsNamed(output)}\n${complaints.slice(-12).join('\n')}`,
  );
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
