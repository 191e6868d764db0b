// SPDX-License-Identifier: Apache-2.0
// Debian packages through apt: found, downloaded (never installed), verified by apt. Works as an ordinary user.
// The machine's apt configuration and lists stay as they are; for other suites, or when the machine's lists are missing or
// stale or the machine is no Debian 12, lists under the cache are used.

import { mkdir, mkdtemp, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CommandResult, runCommand } from './command.js';
import { LabError } from './errors.js';
import type { Distribution } from './packages.js';

const defaultMirror = 'http://deb.debian.org';
const networkOptions = ['-o', 'Acquire::http::Timeout=20', '-o', 'Acquire::Retries=2', '-o', 'APT::Sandbox::User=root'];
const listsAgeMsMax = 7 * 24 * 3_600_000;

export type Progress = (message: string) => void;
export type Suite = 'bookworm' | 'bookworm-backports';

export interface DebianPackage {
  /** For instance linux-image-6.1.0-56-amd64. */
  readonly name: string;
  readonly version: string;
}

/** One set of package lists. */
export class Apt {
  private constructor(private readonly options_: readonly string[]) {}

  /** The lists that the machine has. */
  static machine(): Apt {
    return new Apt([]);
  }

  /**
   * Lists of our own for one suite, read when they are old or `fresh` is asked for.
   * @throws {LabError} LAB_MIRROR_UNREACHABLE naming the mirror
   */
  static async own(
    cacheDir: string,
    suite: Suite,
    options: { distribution: Distribution; progress: Progress; fresh?: boolean },
  ): Promise<Apt> {
    const root = join(cacheDir, 'apt', suite);
    await mkdir(join(root, 'lists', 'partial'), { recursive: true });
    await mkdir(join(root, 'cache', 'archives', 'partial'), { recursive: true });
    const sourceList = join(root, 'sources.list');
    const sources = debianSources(await mirror(), suite);
    const settings = {
      'Dir::State::lists': join(root, 'lists'),
      'Dir::Cache': join(root, 'cache'),
      'Dir::Etc::sourcelist': sourceList,
      'Dir::Etc::sourceparts': '/dev/null',
      'APT::Architecture': 'amd64',
      'APT::Architectures::': 'amd64',
    };
    const apt = new Apt(Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]));
    const read = join(root, 'read');
    const readMs = (await stat(read).catch(() => null))?.mtimeMs ?? 0;
    if (options.fresh !== true && Date.now() - readMs < listsAgeMsMax) return apt;
    await writeFile(sourceList, sources);
    options.progress(`reading the package lists of ${suite}`);
    const result = await apt.get('-o', 'APT::Update::Error-Mode=any', 'update');
    if (result.exitCode !== 0) throw unreachable(`reading the package lists of ${suite}`, outputOf(result));
    await writeFile(read, '');
    return apt;
  }

  /** The concrete package that a metapackage stands for. */
  async behind(metaPackage: string): Promise<DebianPackage | null> {
    const depends = (await this.cache('depends', '--important', metaPackage)).stdout.toString();
    const name = /Depends:\s+(\S+)/.exec(depends)?.[1];
    return name === undefined ? null : this.candidate(name);
  }

  async candidate(name: string): Promise<DebianPackage | null> {
    return parseCandidate(name, (await this.cache('policy', name)).stdout.toString());
  }

  /** The packages and everything that they depend on, on a machine that has nothing. */
  async closure(names: readonly string[]): Promise<DebianPackage[]> {
    const status = ['-o', 'Dir::State::status=/dev/null'];
    const result = await this.get(...status, '--simulate', '--no-install-recommends', 'install', ...names);
    if (result.exitCode !== 0) throw unreachable(`resolving ${names.join(' ')}`, outputOf(result));
    return parseInstalls(result.stdout.toString());
  }

  /** Path of the .deb in `debDir`; null with apt's words when it cannot be had. */
  async download(debDir: string, wanted: DebianPackage): Promise<{ path: string | null; output: string }> {
    const path = join(debDir, debFileName(wanted));
    const now = new Date();
    const there = await utimes(path, now, now).then(
      () => true,
      () => false,
    );
    if (there) return { path, output: '' };
    const work = await mkdtemp(join(debDir, `partial-${process.pid}-`));
    try {
      const result = await runCommand(
        'apt-get',
        [...this.options_, ...networkOptions, 'download', `${wanted.name}=${wanted.version}`],
        { cwd: work },
      );
      const arrived = (await readdir(work)).find((entry) => entry.endsWith('.deb'));
      if (result.exitCode !== 0 || arrived === undefined) return { path: null, output: outputOf(result) };
      await rename(join(work, arrived), path);
      return { path, output: '' };
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  private cache(...args: readonly string[]): Promise<CommandResult> {
    return runCommand('apt-cache', [...this.options_, ...args]);
  }

  private get(...args: readonly string[]): Promise<CommandResult> {
    return runCommand('apt-get', [...this.options_, ...networkOptions, ...args]);
  }
}

/** BASALT_DEBIAN_MIRROR, or where this machine gets its packages from if that is a Debian mirror. */
async function mirror(): Promise<string> {
  const named = process.env['BASALT_DEBIAN_MIRROR'];
  if (named !== undefined) return named;
  const policy = await runCommand('apt-cache', ['policy', 'linux-image-amd64']);
  return /\s(https?:\/\/\S+)\/debian\s+bookworm\/main/.exec(policy.stdout.toString())?.[1] ?? defaultMirror;
}

export function debianSources(mirrorUrl: string, suite: Suite): string {
  const signed = '[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]';
  const lines = [`deb ${signed} ${mirrorUrl}/debian ${suite} main`];
  if (suite === 'bookworm') lines.push(`deb ${signed} ${mirrorUrl}/debian-security bookworm-security main`);
  return `${lines.join('\n')}\n`;
}

export function parseCandidate(name: string, policy: string): DebianPackage | null {
  const version = /Candidate:\s+(\S+)/.exec(policy)?.[1];
  return version === undefined || version === '(none)' ? null : { name, version };
}

/** Out of `apt-get --simulate install`: `Inst libpq5 (15.20-0+deb12u1 Debian-Security:12/oldstable [amd64])`. */
export function parseInstalls(output: string): DebianPackage[] {
  return [...output.matchAll(/^Inst (\S+) \((\S+) /gm)].map((match) => ({
    name: match[1] ?? '',
    version: match[2] ?? '',
  }));
}

/** apt writes an epoch's colon as %3a in file names.. */
export function debFileName(of: DebianPackage): string {
  return `${of.name}_${of.version.replaceAll(':', '%3a')}.deb`;
}

/** Every mirror that a failed apt run complained about, else everything that it may have asked. */
export function mirrorsNamed(aptOutput: string): string {
  const hosts = new Set<string>();
  for (const match of aptOutput.matchAll(/https?:\/\/([^\s/']+)|resolve '([^']+)'|connect to (\S+):/g)) {
    hosts.add(match[1] ?? match[2] ?? match[3] ?? '');
  }
  return hosts.size > 0 ? [...hosts].join(', ') : 'the configured apt sources';
}

function outputOf(result: CommandResult): string {
  return `${result.stdout.toString()}\n${result.stderr}`;
}

export function unreachable(doing: string, output: string): LabError {
  const complaints = output.split('\n').filter((line) => /^(E|W|Err)\b|^\s+(Could|Temporary)/.test(line));
  return new LabError(
    'LAB_MIRROR_UNREACHABLE',
    `${doing} failed at ${mirrorsNamed(output)}\n${complaints.slice(-12).join('\n')}`,
  );
}
