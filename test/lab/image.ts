// SPDX-License-Identifier: Apache-2.0
// The guest's image: Debian's stock kernel and an initramfs of a few programs of this machine with their libraries.
// Cached under .cache/lab/ of the checkout, keyed by a hash of the recipe, the kernel and the packages' versions.
// Invariants:  - an image directory appears by rename, whole, or not at all: an interrupted build leaves only a
//                `partial-` directory that nothing reads and the next build removes
//              - nothing is installed on the machine

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { mustRun, runCommand } from './command.js';
import { LabError } from './errors.js';
import { hostId, hostNqn, initScript } from './init.js';
import { extractVmlinux, fetchKernel, type KernelPackage, type Progress, unpackKernel } from './kernel.js';
import { labPackages, readDistribution, requirePackages } from './packages.js';

/** Raise it when the shape of the image changes in a way that the lists below do not show. */
const recipeVersion = 1;
const imagesKept = 3;

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
export async function ensureImage(options: ImageOptions = {}): Promise<GuestImage> {
  const cacheDir = options.cacheDir ?? defaultCacheDir();
  const progress = options.progress ?? (() => undefined);
  const distribution = await readDistribution();
  await requirePackages(distribution);
  const { kernel, debPath } = await fetchKernel(cacheDir, distribution, progress);
  const key = imageKey(kernel, await packageVersions(labPackages(distribution).map((entry) => entry.name)));
  const imageDir = join(cacheDir, `image-${key}`);
  if (!(await isDirectory(imageDir))) {
    progress(`building the guest image ${key} (${kernel.name})`);
    await buildImage(cacheDir, imageDir, debPath);
    await tidyCache(cacheDir, imageDir, debPath);
  }
  return {
    kernelPath: join(imageDir, 'vmlinux'),
    initrdPath: join(imageDir, 'initrd.cpio'),
    kernelRelease: (await readFile(join(imageDir, 'release'), 'utf8')).trim(),
  };
}

export function imageKey(kernel: KernelPackage, versions: string): string {
  const recipe = JSON.stringify([recipeVersion, guestModules, guestPrograms, links, initScript, hostNqn, hostId]);
  return createHash('sha256')
    .update(`${kernel.name} ${kernel.version}\n${versions}\n${recipe}`)
    .digest('hex')
    .slice(0, 16);
}

async function packageVersions(names: readonly string[]): Promise<string> {
  const result = await runCommand('dpkg-query', ['-W', 'libc6', 'libnvme1', 'util-linux', 'coreutils', ...names]);
  return result.stdout.toString();
}

async function buildImage(cacheDir: string, imageDir: string, debPath: string): Promise<void> {
  const work = await mkdtemp(join(cacheDir, `partial-${process.pid}-`));
  try {
    const kernelDir = join(work, 'kernel');
    const root = join(work, 'root');
    const out = join(work, 'image');
    await mkdir(out);
    const release = await unpackKernel(debPath, kernelDir);
    await extractVmlinux(join(kernelDir, 'boot', `vmlinuz-${release}`), join(out, 'vmlinux'));
    await fillRoot(root);
    await packModules(kernelDir, root, release);
    await packCpio(root, join(out, 'initrd.cpio'));
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

async function fillRoot(root: string): Promise<void> {
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
    await mkdir(join(root, dir), { recursive: true });
  }
  await writeFile(join(root, 'init'), initScript);
  await chmod(join(root, 'init'), 0o755);
  await writeFile(join(root, 'etc/nvme/hostnqn'), `${hostNqn}\n`);
  await writeFile(join(root, 'etc/nvme/hostid'), `${hostId}\n`);
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  await writeFile(join(root, 'etc/group'), 'root:x:0:\n');
  await copyFile('/etc/mke2fs.conf', join(root, 'etc/mke2fs.conf'));
  await packPrograms(root);
}

async function packPrograms(root: string): Promise<void> {
  const files = new Set(guestPrograms);
  for (const program of guestPrograms) {
    for (const library of parseLdd((await mustRun('ldd', [program])).toString(), program)) {
      files.add(library);
    }
  }
  for (const file of files) {
    await mkdir(join(root, dirname(file)), { recursive: true });
    await copyFile(file, join(root, file));
  }
  for (const [path, target] of Object.entries(links)) {
    await symlink(target, join(root, path));
  }
  await copyFile('/bin/busybox', join(root, 'bin/busybox'));
  for (const applet of (await mustRun('/bin/busybox', ['--list'])).toString().trim().split('\n')) {
    // The full programs above win over busybox's smaller ones of the same name.
    await symlink('/bin/busybox', join(root, 'bin', applet)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') {
        throw error;
      }
    });
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

async function packModules(kernelDir: string, root: string, release: string): Promise<void> {
  const moduleDir = join('lib/modules', release);
  await mustRun('/sbin/depmod', ['-b', kernelDir, release]);
  const files = new Set<string>();
  for (const name of guestModules) {
    const shown = await mustRun('/sbin/modprobe', ['-d', kernelDir, '-S', release, '--show-depends', name]);
    for (const path of parseShowDepends(shown.toString())) {
      files.add(relative(kernelDir, path));
    }
  }
  for (const file of files) {
    await mkdir(join(root, dirname(file)), { recursive: true });
    if (file.endsWith('.xz')) {
      await writeFile(join(root, file.slice(0, -3)), await mustRun('xz', ['-dc', join(kernelDir, file)]));
    } else {
      await copyFile(join(kernelDir, file), join(root, file));
    }
  }
  for (const list of ['modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
    await copyFile(join(kernelDir, moduleDir, list), join(root, moduleDir, list));
  }
  await mustRun('/sbin/depmod', ['-b', root, release]);
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

/** Removes what dead builders left behind, older images but a few, and kernels that were superseded. */
async function tidyCache(cacheDir: string, keepDir: string, keepDeb: string): Promise<void> {
  const debDir = dirname(keepDeb);
  await removePartials(cacheDir);
  await removePartials(debDir);
  for (const entry of await readdir(debDir)) {
    if (entry.endsWith('.deb') && join(debDir, entry) !== keepDeb) {
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
