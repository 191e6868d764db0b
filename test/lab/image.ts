// SPDX-License-Identifier: Apache-2.0
// The guest's image: one of Debian's stock kernels and an initramfs of a few programs of this machine with their libraries,
// and of equipment out of Debian packages. Cached under .cache/lab/ of the checkout, keyed by a hash of the recipe, the
// kernel and the versions of the machine's packages.
// Invariants:  - an image directory appears by rename, whole, or not at all: an interrupted build leaves only a
//                `partial-` directory that nothing reads and the next build removes
//              - nothing is installed on the machine

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { Apt, type DebianPackage, type Progress, unreachable } from './apt.js';
import { mustRun, runCommand } from './command.js';
import { type Equipment, type EquipmentName, equipmentOf, isCopied, isUnpacked } from './equipment.js';
import { LabError } from './errors.js';
import { ImageRoot } from './image-root.js';
import { hostId, hostNqn, initScript } from './init.js';
import { extractVmlinux, fetchKernel, type KernelSeries, unpackKernel } from './kernel.js';
import { type Distribution, isDebian12, labPackages, readDistribution, requirePackages } from './packages.js';

/** Raise it when the shape of the image changes in a way that the lists below do not show. */
const recipeVersion = 3;
const imagesKept = 12;
const debAgeMsMax = 60 * 24 * 3_600_000;

/** Loaded with their dependencies' closure; a name that the kernel has built in is fine, one it does not know is not. */
export const guestModules: readonly string[] = [
  'virtio_pci',
  'virtio_net',
  'virtio_blk',
  'virtio_rng',
  'qemu_fw_cfg',
  'ext4',
  'loop',
  'brd',
  'null_blk',
  'nbd',
  'dm_mod',
  'dm_flakey',
  'dm_delay',
  'configfs',
  'tcp_diag',
  'nvme_core',
  'nvme_fabrics',
  'nvme_tcp',
  'nvmet',
  'nvmet_tcp',
  'crc32c_generic',
  'crc32c_intel',
  'crc32_generic',
  'crc32_pclmul',
  'crct10dif_generic',
];

export const guestPrograms: readonly string[] = [
  '/usr/bin/kmod',
  '/usr/bin/fio',
  '/usr/sbin/nvme',
  '/usr/sbin/mke2fs',
  '/usr/sbin/e2fsck',
  '/usr/sbin/blkdiscard',
  '/usr/sbin/blkid',
  '/usr/bin/lsblk',
  '/usr/bin/sha256sum',
];

const links: Readonly<Record<string, string>> = {
  '/sbin/modprobe': '/usr/bin/kmod', // the kernel itself calls this path for crypto algorithms
  '/sbin/insmod': '/usr/bin/kmod',
  '/sbin/rmmod': '/usr/bin/kmod',
  '/sbin/lsmod': '/usr/bin/kmod',
  '/usr/sbin/mkfs.ext4': 'mke2fs',
  '/usr/sbin/fsck.ext4': 'e2fsck',
};

/** What a guest runs on. */
export interface GuestSystem {
  readonly kernel: KernelSeries;
  readonly equipment: readonly EquipmentName[];
}

export const plainSystem: GuestSystem = { kernel: '6.1', equipment: [] };

export interface GuestImage {
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly kernelRelease: string;
}

export interface ImageOptions {
  /** @default .cache/lab in the checkout */
  readonly cacheDir?: string;
  readonly progress?: Progress;
}

export function checkoutDir(): string {
  return join(dirname(fileURLToPath(import.meta.url)), '..', '..');
}

export function defaultCacheDir(): string {
  return join(checkoutDir(), '.cache', 'lab');
}

/**
 * The image, built when the cache has none that fits.
 * @throws {LabError} LAB_PACKAGES_MISSING, LAB_MIRROR_UNREACHABLE, LAB_IMAGE_BROKEN
 */
export async function ensureImage(system: GuestSystem = plainSystem, options: ImageOptions = {}): Promise<GuestImage> {
  const cacheDir = options.cacheDir ?? defaultCacheDir();
  const progress = options.progress ?? (() => undefined);
  const distribution = await readDistribution();
  await requirePackages();
  const context = { cacheDir, distribution, progress };
  const { kernel, debPath } = await fetchKernel(cacheDir, system.kernel, context);
  const versions = await packageVersions(labPackages().map((entry) => entry.name));
  const key = imageKey(kernel, versions, system.equipment);
  const imageDir = join(cacheDir, `image-${key}`);
  if (!(await isDirectory(imageDir))) {
    progress(`building the guest image ${key} (${[kernel.name, ...system.equipment].join(', ')})`);
    await buildImage({ ...context, imageDir, debPath, equipment: system.equipment.map(equipmentOf) });
    await tidyCache(cacheDir, imageDir);
  }
  const now = new Date();
  await utimes(imageDir, now, now);
  return {
    kernelPath: join(imageDir, 'vmlinux'),
    initrdPath: join(imageDir, 'initrd.cpio'),
    kernelRelease: (await readFile(join(imageDir, 'release'), 'utf8')).trim(),
  };
}

export function imageKey(kernel: DebianPackage, versions: string, equipment: readonly EquipmentName[]): string {
  const rows = [...equipment].sort().map((name) => [name, equipmentOf(name)]);
  const recipe = JSON.stringify([recipeVersion, guestModules, guestPrograms, links, initScript, hostNqn, hostId, rows]);
  return createHash('sha256')
    .update(`${kernel.name} ${kernel.version}\n${versions}\n${recipe}`)
    .digest('hex')
    .slice(0, 16);
}

async function packageVersions(names: readonly string[]): Promise<string> {
  const result = await runCommand('dpkg-query', ['-W', 'libc6', 'libnvme1', 'util-linux', 'coreutils', ...names]);
  return result.stdout.toString();
}

interface Build {
  readonly cacheDir: string;
  readonly distribution: Distribution;
  readonly progress: Progress;
  readonly imageDir: string;
  readonly debPath: string;
  readonly equipment: readonly Equipment[];
}

async function buildImage(build: Build): Promise<void> {
  const { cacheDir, imageDir, equipment } = build;
  const work = await mkdtemp(join(cacheDir, `partial-${process.pid}-`));
  try {
    const kernelDir = join(work, 'kernel');
    const root = new ImageRoot(join(work, 'root'));
    const out = join(work, 'image');
    await mkdir(out);
    const release = await unpackKernel(build.debPath, kernelDir);
    await extractVmlinux(join(kernelDir, 'boot', `vmlinuz-${release}`), join(out, 'vmlinux'));
    await fillRoot(root);
    await packEquipment(root, join(work, 'packages'), build);
    await packModules(
      kernelDir,
      root,
      release,
      equipment.flatMap((row) => row.modules ?? []),
    );
    await packCpio(root.dir, join(out, 'initrd.cpio'));
    await writeFile(join(out, 'release'), `${release}\n`);
    await rename(out, imageDir).catch(async (error: NodeJS.ErrnoException) => {
      // Another process built the same image meanwhile; equal keys mean equal images.
      if (!(await isDirectory(imageDir))) {
        throw error;
      }
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Downloads and unpacks what the equipment needs, then copies the parts that it names. */
async function packEquipment(root: ImageRoot, unpacked: string, build: Build): Promise<void> {
  const packages = build.equipment.flatMap((row) => row.packages ?? []);
  if (packages.length > 0) await unpackPackages(unpacked, packages, build);
  const libraryPath = ['lib', 'usr/lib'].map((dir) => join(unpacked, dir, 'x86_64-linux-gnu')).join(':');
  for (const row of build.equipment) {
    for (const program of row.programs ?? []) {
      await copyInto(root, unpacked, join(unpacked, program));
      const needs = await mustRun('ldd', [join(unpacked, program)], { env: { LD_LIBRARY_PATH: libraryPath } });
      for (const library of parseLdd(needs.toString(), program)) await copyInto(root, unpacked, library);
    }
    for (const folder of row.folders ?? []) {
      await cp(join(unpacked, folder), join(root.dir, folder), {
        recursive: true,
        verbatimSymlinks: true,
        filter: isCopied,
      });
    }
    for (const [path, text] of Object.entries(row.files ?? {})) {
      await root.text(text, path);
    }
    for (const [path, target] of Object.entries(row.links ?? {})) await root.link(target, path);
  }
}

async function unpackPackages(unpacked: string, names: readonly string[], build: Build): Promise<void> {
  const { cacheDir, distribution, progress } = build;
  const debDir = join(cacheDir, 'debs');
  const machines = isDebian12(distribution) ? await unpackFrom(Apt.machine(), names, debDir, unpacked) : null;
  if (machines === '') return;
  // The machine's lists are missing or older than the mirror.
  const own = await Apt.own(cacheDir, 'bookworm', { distribution, progress, fresh: true });
  const complaint = await unpackFrom(own, names, debDir, unpacked);
  if (complaint !== '') throw unreachable(`downloading ${names.join(' ')}`, complaint);
}

/** The empty string when all is there, else apt's complaint. */
async function unpackFrom(apt: Apt, names: readonly string[], debDir: string, unpacked: string): Promise<string> {
  const closure = await apt.closure(names).catch((error: unknown) => String(error));
  if (typeof closure === 'string') return closure;
  const paths: string[] = [];
  for (const wanted of closure.filter(({ name }) => isUnpacked(name, names))) {
    const { path, output } = await apt.download(debDir, wanted);
    if (path === null) return output;
    paths.push(path);
  }
  for (const path of paths) await mustRun('dpkg', ['-x', path, unpacked]);
  return '';
}

/** A file of the unpacked packages, or of the machine, to the same place below `root`; links become files. */
async function copyInto(root: ImageRoot, unpacked: string, file: string): Promise<void> {
  const place = file.startsWith(unpacked) ? file.slice(unpacked.length) : file;
  await root.file(file, place);
}

async function fillRoot(root: ImageRoot): Promise<void> {
  for (const dir of [
    'proc',
    'sys',
    'dev',
    'tmp',
    'run',
    'root',
    'mnt',
    'bin',
    'sbin',
    'etc/nvme',
    'usr/bin',
    'usr/sbin',
  ]) {
    await root.folder(dir);
  }
  await root.text(initScript, 'init', 0o755);
  await root.text(`${hostNqn}\n`, 'etc/nvme/hostnqn');
  await root.text(`${hostId}\n`, 'etc/nvme/hostid');
  // Databases refuse to run as root.
  await root.text('root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n', 'etc/passwd');
  await root.text('root:x:0:\nuser:x:1000:\n', 'etc/group');
  await root.file('/etc/mke2fs.conf', 'etc/mke2fs.conf');
  await packPrograms(root);
}

async function packPrograms(root: ImageRoot): Promise<void> {
  const files = new Set(guestPrograms);
  for (const program of guestPrograms) {
    for (const library of parseLdd((await mustRun('ldd', [program])).toString(), program)) {
      files.add(library);
    }
  }
  for (const file of files) await root.file(file, file);
  for (const [path, target] of Object.entries(links)) await root.link(target, path);
  await root.file('/bin/busybox', 'bin/busybox');
  for (const applet of (await mustRun('/bin/busybox', ['--list'])).toString().trim().split('\n')) {
    // The full programs above win over busybox's smaller ones of the same name.
    if (!(await root.has(`bin/${applet}`))) await root.link('busybox', `bin/${applet}`);
  }
}

/** The library files that `ldd` names, the loader included. @throws {LabError} when one of them is not found */
export function parseLdd(output: string, program: string): string[] {
  const libraries: string[] = [];
  for (const line of output.split('\n')) {
    if (/=> not found/.test(line)) {
      throw new LabError('LAB_IMAGE_BROKEN', `${program}: ${line.trim()}`);
    }
    const path = /(?:=>\s+)?(\/\S+)\s+\(0x/.exec(line)?.[1];
    if (path !== undefined) {
      libraries.push(path);
    }
  }
  return libraries;
}

async function packModules(
  kernelDir: string,
  root: ImageRoot,
  release: string,
  further: readonly string[],
): Promise<void> {
  const moduleDir = join('lib/modules', release);
  await mustRun('/sbin/depmod', ['-b', kernelDir, release]);
  const files = new Set<string>();
  for (const name of [...guestModules, ...further]) {
    const shown = await mustRun('/sbin/modprobe', ['-d', kernelDir, '-S', release, '--show-depends', name]);
    for (const path of parseShowDepends(shown.toString())) {
      files.add(relative(kernelDir, path));
    }
  }
  for (const file of files) {
    const unpacked = join(kernelDir, file);
    if (file.endsWith('.xz')) await root.text(await mustRun('xz', ['-dc', unpacked]), file.slice(0, -3));
    else await root.file(unpacked, file);
  }
  for (const list of ['modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
    await root.file(join(kernelDir, moduleDir, list), join(moduleDir, list));
  }
  await mustRun('/sbin/depmod', ['-b', root.dir, release]);
}

/** The module files out of `modprobe --show-depends`; built-in ones have no file. */
export function parseShowDepends(output: string): string[] {
  const paths: string[] = [];
  for (const match of output.matchAll(/^insmod (\S+)/gm)) {
    paths.push(match[1] ?? '');
  }
  return paths;
}

async function packCpio(root: string, intoPath: string): Promise<void> {
  const names = await mustRun('find', ['.', '-mindepth', '1', '-print0'], { cwd: root });
  const child = spawn('cpio', ['--null', '--create', '--format=newc', '--owner=0:0', '--quiet'], {
    cwd: root,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.end(names);
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  await pipeline(child.stdout, createWriteStream(intoPath));
  const exitCode = await ended;
  if (exitCode !== 0) {
    throw new LabError('LAB_IMAGE_BROKEN', `cpio: exit code ${exitCode}`);
  }
}

/** Removes what dead builders left behind, older images but a few, and packages that nobody used for long. */
async function tidyCache(cacheDir: string, keepDir: string): Promise<void> {
  const debDir = join(cacheDir, 'debs');
  await removePartials(cacheDir);
  await removePartials(debDir);
  for (const entry of await readdir(debDir)) {
    const info = await stat(join(debDir, entry)).catch(() => null);
    if (entry.endsWith('.deb') && info !== null && Date.now() - info.mtimeMs > debAgeMsMax) {
      await rm(join(debDir, entry), { force: true });
    }
  }
  const images: { path: string; changedMs: number }[] = [];
  for (const entry of await readdir(cacheDir)) {
    const path = join(cacheDir, entry);
    const info = await stat(path).catch(() => null);
    if (entry.startsWith('image-') && info !== null && path !== keepDir) {
      images.push({ path, changedMs: info.mtimeMs });
    }
  }
  images.sort((a, b) => b.changedMs - a.changedMs);
  for (const image of images.slice(imagesKept - 1)) {
    await rm(image.path, { recursive: true, force: true });
  }
}

async function removePartials(dir: string): Promise<void> {
  for (const entry of await readdir(dir)) {
    const builder = /^partial-(\d+)-/.exec(entry)?.[1];
    if (builder !== undefined && !(await isDirectory(`/proc/${builder}`))) {
      await rm(join(dir, entry), { recursive: true, force: true });
    }
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() ?? false;
}
