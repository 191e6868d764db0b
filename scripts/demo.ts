// SPDX-License-Identifier: Apache-2.0
//
// npm run demo [-- [IMAGE] [--json] [--keep] [--engine spdk]]: the main job on real input, with real kills. Exits with 0 only when every
// byte came back.

import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../src/engine/native/addon.js';
import { spdkMissing, spdkProgram } from '../src/engine/spdk/testing/spdk-process.js';
import { systemClock } from '../src/env/clock.js';
import type { VolumeView } from '../src/model/api.js';
import { DemoCluster } from './demo/cluster.js';
import { DemoHost, hostNqn } from './demo/host.js';
import { checkFileSystem, type Image, makeImage, sha256OfFile, useImage } from './demo/image.js';
import { emptyReport, type Report, rates, table } from './demo/report.js';

const MiB = 1024 * 1024;
const volumeName = 'demo';
const killControllerAt = 0.3;
const killDiskNodeAt = 0.65;

interface Options {
  readonly image: string | null;
  readonly json: boolean;
  readonly keep: boolean;
  /** An spdk_tgt has the drives of the disk nodes. */
  readonly spdk: string | null;
}

const usage = 'usage: npm run demo -- [IMAGE] [--json] [--keep] [--engine spdk]';

function parseArguments(given: readonly string[]): Options {
  const engineAt = given.indexOf('--engine');
  const args = engineAt < 0 ? given : given.toSpliced(engineAt, 2);
  if (engineAt >= 0 && given[engineAt + 1] !== 'spdk') throw new Error(`--engine: spdk is the only choice; ${usage}`);
  const flags = args.filter((arg) => arg.startsWith('-'));
  const names = args.filter((arg) => !arg.startsWith('-'));
  const unknown = flags.find((flag) => flag !== '--json' && flag !== '--keep');
  if (unknown !== undefined || names.length > 1) {
    throw new Error(`${unknown ?? names[1]}: not understood; ${usage}`);
  }
  const [image = null] = names;
  if (image !== null) useImage(image);
  return {
    image,
    json: flags.includes('--json'),
    keep: flags.includes('--keep'),
    spdk: engineAt < 0 ? null : spdkProgram,
  };
}

class Demo {
  readonly #options: Options;
  readonly #folder: string;
  readonly #root: string;
  readonly #report = emptyReport();
  readonly #started = systemClock.now();
  #cluster: DemoCluster | null = null;
  #host: DemoHost | null = null;

  constructor(options: Options) {
    this.#options = options;
    this.#root = packageRoot();
    this.#folder = join(this.#root, '.cache', 'demo', `${process.pid}`);
  }

  get report(): Report {
    return this.#report;
  }

  async run(): Promise<void> {
    rmSync(this.#folder, { recursive: true, force: true });
    mkdirSync(this.#folder, { recursive: true });
    const image = this.#prepareImage();
    this.#report.bytes = image.bytes;
    const expected = sha256OfFile(image.path);

    const volume = await this.#startCluster(image);
    this.#say(`connecting as ${hostNqn}: one path to each controller`);
    this.#host = await DemoHost.connect(volume);
    await this.#writeWithKills(this.#host, image);
    await this.#waitForRedundancy();
    await this.#compare(image, expected, 'after the kills');

    this.#say('killing everything with SIGKILL, and starting it again');
    await this.#host.close();
    this.#host = null;
    await this.#cluster?.killAll();
    await this.#cluster?.start();
    const again = await this.#waitForPaths();
    this.#host = await DemoHost.connect(again);
    await this.#compare(image, expected, 'after the restart of everything');
    this.#report.sha256 = expected;
    await this.#host.close();
    this.#host = null;
    if (this.#options.keep) await this.#keep(again);
  }

  /** Ends what still runs; what the verdict needs is in the report. */
  async end(): Promise<void> {
    this.#report.elapsed_ms = Math.round(systemClock.now() - this.#started);
    this.#report.verdict = this.#report.problems.length === 0 && this.#report.sha256 !== null ? 'ok' : 'failed';
    await this.#host?.close().catch(() => {});
    if (this.#options.keep && this.#report.verdict === 'ok') return;
    await this.#cluster?.killAll();
    // Logs of a failed run stay for the reader.
    if (this.#report.verdict === 'ok') rmSync(this.#folder, { recursive: true, force: true });
    else if (existsSync(this.#folder)) this.#say(`the daemons' logs are in ${this.#folder}`);
  }

  /** All in one go, so that nothing else of this process runs any more; the dying daemons may still touch their files. */
  interrupt(): void {
    this.#cluster?.killAllNow();
    this.#say('interrupted: ending the daemons and removing their files');
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }

  #say(text: string): void {
    const seconds = ((systemClock.now() - this.#started) / 1000).toFixed(1).padStart(5);
    process.stderr.write(`[${seconds} s] ${text}\n`);
  }

  #prepareImage(): Image {
    if (this.#options.image !== null) return useImage(this.#options.image);
    this.#say("making an ext4 image of this project's files");
    return makeImage(this.#root, this.#folder);
  }

  async #startCluster(image: Image): Promise<VolumeView> {
    this.#say('starting the store, an API server, three disk nodes and two controller nodes');
    const sizeBytes = Math.ceil(image.bytes / MiB) * MiB;
    const diskBytes = Math.max(2 * sizeBytes, 256 * MiB);
    const { keep, spdk } = this.#options;
    const common = { folder: this.#folder, diskBytes, stays: keep };
    const cluster = await DemoCluster.plan(spdk === null ? common : { ...common, spdk });
    this.#cluster = cluster;
    await cluster.start();
    for (const daemon of cluster.daemons) this.#say(`  ${daemon.name.padEnd(13)} process ${daemon.pid}`);
    this.#say(`creating volume '${volumeName}': ${sizeBytes / MiB} MiB, thin, two copies, four legs`);
    await cluster.api.createVolume({
      name: volumeName,
      sizeBytes,
      copies: 2,
      legs: 4,
      controllers: ['controller-1', 'controller-2'],
    });
    await cluster.api.attach(volumeName, { host: hostNqn });
    return this.#waitForPaths();
  }

  #waitForPaths(): Promise<VolumeView> {
    return this.#mustCluster().waitForVolume(
      volumeName,
      'served by one controller with the other on standby',
      60_000,
      (volume) => {
        const states = volume.paths.map((path) => path.state).sort();
        return volume.controller !== null && states.join(' ') === 'active standby' && volume.hosts.includes(hostNqn);
      },
    );
  }

  async #writeWithKills(host: DemoHost, image: Image): Promise<void> {
    const cluster = this.#mustCluster();
    let phase: 'before' | 'controller' | 'disk_node' = 'before';
    const kills: Promise<void>[] = [];
    this.#say(`writing ${(image.bytes / MiB).toFixed(0)} MiB over NVMe/TCP`);
    const active = (await cluster.api.volume(volumeName)).controller;
    if (active === null) throw new Error('the volume has no active controller');
    const progress = (acknowledged: number): void => {
      const percent = Math.round((acknowledged / image.bytes) * 100);
      if (phase === 'before' && acknowledged >= image.bytes * killControllerAt) {
        phase = 'controller';
        this.#say(`  ${percent} %: SIGKILL to ${active}, the active controller`);
        host.gap.mark();
        kills.push(cluster.daemon(active).kill());
      } else if (phase === 'controller' && acknowledged >= image.bytes * killDiskNodeAt) {
        phase = 'disk_node';
        this.#report.gap_ms.controller = host.gap.longestMs;
        this.#say(`  ${percent} %: SIGKILL to disk-1`);
        host.gap.mark();
        kills.push(cluster.daemon('disk-1').kill());
      }
    };
    const throughput = await host.writeFile(image.path, image.bytes, progress);
    await host.flush();
    host.gap.completed();
    // An image of a few requests is written before both kills were due: they come now, each with a flush to get through.
    while ((phase as string) !== 'disk_node') {
      progress(image.bytes);
      await host.flush();
      host.gap.completed();
    }
    host.gap.completed();
    this.#report.gap_ms.disk_node = host.gap.longestMs;
    await Promise.all(kills);
    this.#report.write = rates(throughput);
    this.#say(`written and flushed through ${(await cluster.api.volume(volumeName)).controller}`);
    await cluster.daemon(active).start();
    this.#say(`${active} is back, as the standby`);
  }

  async #waitForRedundancy(): Promise<void> {
    const cluster = this.#mustCluster();
    const started = systemClock.now();
    this.#say('starting disk-1 again and waiting for full redundancy');
    await cluster.daemon('disk-1').start();
    await cluster.waitForVolume(volumeName, 'redundant', 120_000, (volume) => volume.health === 'redundant');
    this.#report.full_redundancy_ms = Math.round(systemClock.now() - started);
  }

  async #compare(image: Image, expected: string, when: string): Promise<void> {
    const host = this.#host;
    if (host === null) throw new Error('the host is not connected');
    const copy = join(this.#folder, 'copy');
    const { sha256, throughput } = await host.readToFile(copy, image.bytes);
    this.#report.read ??= rates(throughput);
    if (sha256 !== expected) {
      this.#report.problems.push(`${when} the SHA-256 is ${sha256}, written was ${expected}`);
      this.#say(`read back ${when}: DIFFERENT`);
      return;
    }
    this.#say(`read back ${when}: same SHA-256`);
    if (!image.isExt) return;
    const complaint = checkFileSystem(copy);
    if (complaint !== null) this.#report.problems.push(`${when} e2fsck says: ${complaint}`);
    this.#say(complaint === null ? 'e2fsck -fn: clean' : `e2fsck -fn: ${complaint}`);
  }

  async #keep(volume: VolumeView): Promise<void> {
    const cluster = this.#mustCluster();
    const nbdPath = join(this.#folder, 'demo.nbd');
    if (nbdPath.length <= 107) await cluster.api.attach(volumeName, { nbd: { path: nbdPath } });
    const attached = await cluster.waitForVolume(
      volumeName,
      'exported over NBD',
      20_000,
      (view) => nbdPath.length > 107 || view.paths.some((path) => path.nbd.length > 0),
    );
    const lines = ['', 'The cluster stays up:'];
    for (const path of volume.paths) {
      if (path.address === null) continue;
      const { traddr, trsvcid } = path.address;
      lines.push(`  nvme connect -t tcp -a ${traddr} -s ${trsvcid} -n ${volume.nqn} -q ${hostNqn}`);
    }
    for (const nbd of attached.paths.flatMap((path) => path.nbd)) lines.push(`  ${nbd.uri}`);
    lines.push(`  API: ${cluster.api.endpoint}`);
    lines.push(`  Files and logs: ${this.#folder}`);
    lines.push(`  To end it: kill -9 ${cluster.daemons.map((daemon) => daemon.pid).join(' ')}`);
    process.stderr.write(`${lines.join('\n')}\n`);
    for (const daemon of cluster.daemons) daemon.release();
  }

  #mustCluster(): DemoCluster {
    if (this.#cluster === null) throw new Error('the cluster was not started');
    return this.#cluster;
  }
}

async function main(): Promise<number> {
  if (process.argv.slice(2).some((arg) => arg === '--help' || arg === '-h')) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  let options: Options;
  try {
    options = parseArguments(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 2;
  }
  if (process.argv.includes('--engine') && options.spdk === null) {
    process.stderr.write(`demonstration with SPDK: skipped${spdkMissing}\n`);
    return 0;
  }
  const demo = new Demo(options);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      demo.interrupt();
      process.exit(signal === 'SIGINT' ? 130 : 143);
    });
  }
  try {
    await demo.run();
  } catch (error) {
    demo.report.problems.push(error instanceof Error ? error.message : String(error));
  }
  await demo.end();
  process.stdout.write(options.json ? `${JSON.stringify(demo.report)}\n` : `\n${table(demo.report)}\n`);
  return demo.report.verdict === 'ok' ? 0 : 1;
}

const code = await main();
// What is still open here must not keep the verdict from its reader.
process.stdout.write('', () => process.exit(code));
