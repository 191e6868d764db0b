// SPDX-License-Identifier: Apache-2.0
//
// Goal: a cluster over several machines, as docs/operations.md sets one up: etcd and the API by TLS, nodes on a trusted
// network, and nodes on one where everybody listens, which speak TLS only. Volumes are made, used by a host and by a
// program on other machines, and survive a machine that is cut off.
// Method: each machine is a network namespace with an address and a loopback of its own. What is on the wire is recorded,
// and searched for what was written: on the trusted network it is there.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commandPath } from '../../scripts/demo/command-path.js';
import { pollUntil } from '../../scripts/demo/poll.js';
import { Daemon } from '../../scripts/demo/processes.js';
import type { NodeView, VolumeView } from '../../src/model/api.js';
import type { Address } from '../../src/model/objects.js';
import { TestAuthority } from '../../src/store/testing/certificates.js';
import { bridgeName, Machines, machinesMissing } from './machines.js';

const patientMs = 90_000;
const nodes = ['m1', 'm2', 'm3'];
const basaltScript = commandPath();
const library = pathToFileURL(join(process.cwd(), 'dist', 'src', 'index.js')).href;
const hostNqn = 'nqn.2014-08.org.nvmexpress:uuid:0d1a7c3e-77a2-4c0e-9f4b-0c5a5e0a7701';
/** 32 bytes and their checksum, as `nvme gen-tls-key --hmac=1` makes them. */
const hostPsk = 'NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:';
const known = 'what was written in one place';

const networks = [
  { network: 'that is trusted', trusted: true },
  { network: 'where everybody listens', trusted: false },
];

describe.skipIf(machinesMissing !== '').each(networks)(
  `a cluster over several machines, on a network $network${machinesMissing}`,
  { timeout: 240_000 },
  ({ trusted }) => {
    let recorder: ChildProcess;
    let folder: string;
    let machines: Machines;
    const daemons = new Map<string, Daemon>();
    /** What each said when it was. */
    const ready = new Map<string, Record<string, unknown>>();
    const file = (name: string): string => join(folder, name);

    beforeAll(async () => {
      folder = await mkdtemp('/var/tmp/basalt-machines-');
      machines = await Machines.make(['store', ...nodes, 'host']);
      recorder = await record();
      const authority = await TestAuthority.create(folder, 'ca');
      const server = await authority.sign('server', machines.address('store'));
      const client = await authority.sign('client');
      const endpoint = `${machines.address('store')}:2379`;
      const config = {
        store: { endpoints: [endpoint], ca: authority.ca, ...client },
        clusterKey: { file: file('cluster.key') },
        nodeKey: { file: file('node.key') },
        api: { tlsListen: `${machines.address('store')}:7421`, ...server },
        nodes: nodes.map((name) => ({
          name,
          address: machines.address(name),
          ...(trusted ? { trustedNetwork: true } : {}),
          disks: [{ path: file(`${name}.disk`), createBytes: 256 * 2 ** 20 }],
        })),
      };
      writeFileSync(file('config.json'), JSON.stringify(config));
      for (const kind of [[], ['--node']])
        basalt('store', 'key', 'create', ...kind, '--file', file(kind.length === 0 ? 'cluster.key' : 'node.key'));
      const tls = ['--cert-file', server.cert, '--key-file', server.key, '--trusted-ca-file', authority.ca];
      const urls = [`--listen-client-urls=https://${endpoint}`, `--advertise-client-urls=https://${endpoint}`];
      const etcd = ['etcd', '--data-dir', file('etcd'), ...tls, '--client-cert-auth', ...urls];
      // Daemons wait for it.
      const begun = async (): Promise<void> => {};
      await start(
        'etcd',
        'store',
        ['env', `ETCD_UNSUPPORTED_ARCH=${process.arch}`, ...etcd, '--unsafe-no-fsync'],
        begun,
      );
      await startBasalt('api', 'store', 'api');
      await Promise.all(nodes.map((name) => startBasalt(name, name, 'node', '--name', name)));
      const token = basalt('store', 'token', 'create', 'root', '--role', 'admin', '--file', file('root.token'));
      expect(token).toContain('root');
      basalt('store', ...asRoot, 'volume', 'create', 'v', '--size', '16M', '--copies', '2', '--legs', '2');
      await settled('redundant, with a controller on standby', (volume) =>
        volume.paths.some(({ state }) => state === 'standby'),
      );
    }, 180_000);

    afterAll(async () => {
      for (const daemon of daemons.values()) await daemon.kill();
      await stopRecording();
      machines?.end();
      await rm(folder, { recursive: true, force: true });
    }, 60_000);

    const asRoot = ['--token-file', ''];

    /** All that is on the wire from here on. */
    async function record(): Promise<ChildProcess> {
      const [program = '', ...args] = [...machines.hubPrefix, 'dumpcap', '-q', '-i', bridgeName, '-w', file('wire')];
      const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
      let said = '';
      child.stderr?.on('data', (piece: Buffer) => {
        said += piece.toString();
      });
      await pollUntil(
        'recording',
        10_000,
        async () => said,
        (text) => text.includes('File:'),
      );
      return child;
    }

    async function stopRecording(): Promise<void> {
      if (recorder === undefined || recorder.exitCode !== null) return;
      const ended = once(recorder, 'exit');
      // nsenter became what it runs.
      recorder.kill('SIGINT');
      await ended;
    }

    function start(
      name: string,
      machine: string,
      command: readonly string[],
      ready?: () => Promise<void>,
    ): Promise<Record<string, unknown>> {
      mkdirSync(file(name), { recursive: true });
      const plan = { name, command: [...machines.prefix(machine), ...command], ...(ready && { ready }) };
      const daemon = new Daemon(plan, folder);
      daemons.set(name, daemon);
      return daemon.start();
    }

    async function startBasalt(name: string, machine: string, ...args: readonly string[]): Promise<void> {
      const common = ['--config', file('config.json'), '--log-level', 'info', '--json'];
      ready.set(name, await start(name, machine, [process.execPath, basaltScript, ...args, ...common]));
    }

    /** Of a node: towards nodes, and towards hosts. */
    function portsOf(name: string): Address[] {
      const { internal, hosts } = ready.get(name) as { internal: Address; hosts: Address };
      return [internal, hosts];
    }

    /** On that machine. */
    function basalt(machine: string, ...args: readonly string[]): string {
      const ran = run(machine, ...args);
      expect(ran.status, `${args.join(' ')}: ${ran.stderr}`).toBe(0);
      return ran.stdout;
    }

    /** What it says when it refuses. */
    function refusal(...args: readonly string[]): string {
      const ran = run('store', ...asRoot, ...args);
      expect(ran.status, ran.stdout).not.toBe(0);
      return ran.stderr;
    }

    function run(machine: string, ...args: readonly string[]) {
      asRoot[1] = file('root.token');
      const [program = '', ...command] = [...machines.prefix(machine), process.execPath, basaltScript, ...args];
      return spawnSync(program, command, { encoding: 'utf8', timeout: patientMs, cwd: folder });
    }

    function settled(what: string, holds: (volume: VolumeView) => boolean): Promise<VolumeView> {
      const show = async (): Promise<VolumeView> =>
        JSON.parse(basalt('store', ...asRoot, 'volume', 'show', 'v', '--json')) as VolumeView;
      return pollUntil(what, patientMs, show, (volume) => volume.health === 'redundant' && holds(volume));
    }

    /** What a program prints that is connected to the cluster, on the machine that has neither disks nor controllers. */
    function connected(body: string): string {
      const options = {
        api: `https://${machines.address('store')}:7421`,
        apiCa: readFileSync(file('ca.crt'), 'utf8'),
        apiToken: readFileSync(file('root.token'), 'utf8').trim(),
        storeSecurity: { ca: file('ca.crt'), cert: file('ca-client.crt'), key: file('ca-client.key') },
        nodeKey: file('node.key'),
      };
      const text = `
      import { Cluster } from ${JSON.stringify(library)};
      const cluster = await Cluster.connect(${JSON.stringify(options)});
      ${body}
      await cluster.close();`;
      const [name = '', ...args] = [...machines.prefix('host'), process.execPath, '--input-type=module', '-e', text];
      const ran = spawnSync(name, args, { encoding: 'utf8', timeout: patientMs });
      expect(ran.status, ran.stderr).toBe(0);
      return ran.stdout;
    }

    /** The same, of one that drives the volume itself. */
    function program(body: string): string {
      return connected(`const volume = await cluster.open('v', { takeover: true });\n${body}\nawait volume.close();`);
    }

    it('shows hosts addresses that they can reach, and lets them in there', async () => {
      writeFileSync(file('psk'), `${hostPsk}\n`, { mode: 0o600 });
      const keys = trusted ? [] : ['--tls-psk-file', file('psk')];
      if (!trusted) expect(refusal('attach', 'v', '--host', hostNqn)).toContain('no key for TLS');
      const printed = basalt('store', ...asRoot, 'attach', 'v', '--host', hostNqn, ...keys);
      expect(printed).toContain('nvme connect');
      for (const address of printed.match(/\d+\.\d+\.\d+\.\d+/g) ?? []) expect(address).toMatch(/^10\.77\.0\.[2-4]$/);
      const volume = await settled('a path', ({ paths }) => paths.some(({ state }) => state === 'active'));
      const reached = ({ address, tlsAddress }: VolumeView['paths'][number]) => (trusted ? address : tlsAddress);
      expect(volume.paths.map((path) => reached(path)?.traddr).sort()).toEqual(
        volume.paths.map(({ node }) => machines.address(node)).sort(),
      );
      if (!trusted) expect(volume.paths.map(({ address }) => address)).toEqual(volume.paths.map(() => null));
      const status = JSON.parse(basalt('store', ...asRoot, 'status', '--json')) as { nodes: NodeView[] };
      expect(status.nodes).toHaveLength(3);
      for (const { internal, hosts } of status.nodes)
        expect([internal?.secure, hosts?.secure]).toEqual(trusted ? [undefined, undefined] : [true, true]);
      // From the host's machine: the engine's own host.
      const active = volume.paths.find(({ state }) => state === 'active');
      const { traddr, trsvcid } = (active === undefined ? null : reached(active)) ?? {};
      const body = `
      await cluster.engine.rpc('basalt_keyring_add_key', { name: 'psk', secret: '${hostPsk}' });
      const [bdev] = await cluster.engine.rpc('bdev_nvme_attach_controller', { name: 'h', trtype: 'TCP',
        traddr: '${traddr}', trsvcid: '${trsvcid}', subnqn: ${JSON.stringify(volume.nqn)}, hostnqn: '${hostNqn}'${trusted ? '' : ", psk: 'psk'"} });
      console.log(bdev);
      await cluster.engine.rpc('bdev_nvme_detach_controller', { name: 'h' });`;
      expect(connected(body)).toBe('hn1\n');
    });

    it(`${trusted ? 'answers' : 'closes'} what comes without TLS, on every port of its nodes`, () => {
      const text = `
      import { connect } from 'node:net';
      const [ports] = process.argv.slice(1);
      for (const at of ports.split(',')) {
        const [host, port] = at.split(':');
        const socket = connect({ host, port: Number(port) });
        // An ICReq that any port for NVMe/TCP without TLS answers.
        socket.write(Buffer.concat([Buffer.from([0, 0, 128, 0, 128, 0, 0, 0]), Buffer.alloc(120)]));
        const answer = await new Promise((resolve) => {
          let heard = 0;
          socket.on('error', () => {}).on('close', () => resolve('closed'));
          socket.on('data', (piece) => (heard += piece.length) === 128 && resolve('answered'));
        });
        console.log(at, answer);
        socket.destroy();
      }`;
      const ports = nodes.flatMap((name) => portsOf(name)).map(({ traddr, trsvcid }) => `${traddr}:${trsvcid}`);
      expect(ports).toHaveLength(6);
      const [name = '', ...args] = [...machines.prefix('host'), process.execPath, '--input-type=module', '-e', text];
      const ran = spawnSync(name, [...args, ports.join(',')], { encoding: 'utf8', timeout: patientMs });
      expect(ran.stdout.trim().split('\n')).toEqual(ports.map((at) => `${at} ${trusted ? 'answered' : 'closed'}`));
    });

    it('refuses a node there that could not tell nodes from strangers', () => {
      const config = JSON.parse(readFileSync(file('config.json'), 'utf8')) as object;
      writeFileSync(file('keyless.json'), JSON.stringify({ ...config, nodeKey: undefined }));
      mkdirSync(file('elsewhere'));
      const [name = '', ...args] = [...machines.prefix('m1'), process.execPath, basaltScript, 'node', '--name', 'm1'];
      const at = { encoding: 'utf8', timeout: patientMs, cwd: file('elsewhere') } as const;
      const ran = spawnSync(name, [...args, '--config', file('keyless.json')], at);
      expect(ran.stderr).toContain('basalt key create --node');
      expect(ran.status).toBe(8);
    });

    it('serves a program on yet another machine, and what that wrote survives the loss of one', async () => {
      const text = JSON.stringify(known);
      program(`await volume.write(4096, Buffer.alloc(8192, ${text})); await volume.flush();`);
      await settled('redundant again', ({ paths }) => paths.some(({ state }) => state === 'active'));
      await machines.cut('m1');
      expect(
        program(`console.log((await volume.read(4096, 8192)).equals(Buffer.alloc(8192, ${JSON.stringify(known)})));`),
      ).toBe('true\n');
    });

    it('shows who listens what was written on a network that is trusted, and not elsewhere', async () => {
      await stopRecording();
      const wire = readFileSync(file('wire'));
      expect(wire.length).toBeGreaterThan(16_384);
      expect(wire.includes(known)).toBe(trusted);
    });
  },
);
