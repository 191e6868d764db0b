// SPDX-License-Identifier: Apache-2.0
//
// What every engine promises of members that share a link with a node; part of the engine contract (contract.ts).

import { expect, it } from 'vitest';
import { expectRefusal } from './contract-tools.js';
import type { Engine } from './engine.js';

const hostnqn = 'nqn.2025-01.io.basalt:controller:test';
const linkNqn = 'nqn.2025-01.io.basalt:node-link';
const nqnOf = (name: string): string => `nqn.2025-01.io.basalt:replica:${name}`;

interface Node {
  readonly engine: Engine;
  readonly traddr: string;
  readonly trsvcid: string;
}

/** Replicas r1, r2, …, and a link when `hosts` names somebody who may use it. */
async function serve(engine: Engine, path: string, count: number, hosts: readonly string[]): Promise<Node> {
  const file = { filename: path, block_size: 4096, create_bytes: 64 * 2 ** 20, buffered: true };
  await engine.rpc('bdev_aio_create', { name: 'disk', ...file });
  await engine.rpc('bdev_lvol_create_lvstore', { bdev_name: 'disk', lvs_name: 'lvs' });
  await engine.rpc('nvmf_create_transport', { trtype: 'TCP' });
  const at = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1' } as const;
  let trsvcid = '0';
  const listen = async (nqn: string): Promise<void> => {
    const bound = await engine.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: { ...at, trsvcid } });
    trsvcid = bound.trsvcid;
  };
  for (let i = 1; i <= count; i++) {
    const nqn = nqnOf(`r${i}`);
    await engine.rpc('bdev_lvol_create', { lvol_name: `r${i}`, size_in_mib: 8, lvs_name: 'lvs', thin_provision: true });
    await engine.rpc('nvmf_create_subsystem', { nqn, serial_number: `INCARNATION${i}`, internal: true });
    await engine.rpc('nvmf_subsystem_add_host', { nqn, host: hostnqn });
    await engine.rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: `lvs/r${i}`, one_writer: true } });
    await listen(nqn);
  }
  if (hosts.length > 0) {
    await engine.rpc('nvmf_create_subsystem', { nqn: linkNqn, internal: true, node_link: true });
    for (const host of hosts) await engine.rpc('nvmf_subsystem_add_host', { nqn: linkNqn, host });
    await listen(linkNqn);
  }
  return { engine, traddr: at.traddr, trsvcid };
}

function attach(
  node: Node,
  at: { from: Engine; member: string; replica: string; epoch: number },
): Promise<{ incarnation: string; shared: boolean }> {
  const { traddr, trsvcid } = node;
  const names = { name: at.member, subnqn: nqnOf(at.replica), link_nqn: linkNqn, hostnqn };
  return at.from.rpc('basalt_member_attach', { ...names, traddr, trsvcid, epoch: at.epoch, timeout_ms: 5000 });
}

const filled = (value: number): Uint8Array => new Uint8Array(4096).fill(value);

export function nodeLinks(start: () => Engine, diskPath: (name: string) => string): void {
  it('reaches all replicas of a node by one link, each under its own epoch', async () => {
    const node = await serve(start(), diskPath('d0'), 3, [hostnqn]);
    const from = start();
    for (let i = 1; i <= 3; i++) {
      const taken = await attach(node, { from, member: `m${i}`, replica: `r${i}`, epoch: 4 + i });
      expect(taken).toMatchObject({ incarnation: `INCARNATION${i}`, shared: true });
    }
    // Their number does not follow that of the replicas.
    const [link, ...others] = await from.rpc('basalt_link_get', {});
    expect(others).toEqual([]);
    expect(link).toEqual({
      address: `${node.traddr}:${node.trsvcid}`,
      hostnqn,
      state: 'live',
      connections: 5,
      members: 3,
    });
    const handles = await Promise.all([1, 2, 3].map((i) => from.openBdev(`m${i}`)));
    await Promise.all(handles.map((handle, i) => handle.write(0, filled(i + 1))));
    for (const [i, handle] of handles.entries()) {
      const back = new Uint8Array(4096);
      await handle.read(0, back);
      expect(back[0]).toBe(i + 1);
    }
    // A later epoch of the same node, by the same connections, shuts the earlier one out of that replica alone.
    await attach(node, { from, member: 'm1b', replica: 'r1', epoch: 6 });
    await expect(handles[0]?.write(0, filled(9))).rejects.toMatchObject({ isReservationConflict: true });
    await handles[1]?.write(0, filled(8));
    const stale = attach(node, { from, member: 'm1c', replica: 'r1', epoch: 5 });
    await expectRefusal(stale, 'fenced', '6');
    await Promise.all(handles.map((handle) => handle.close()));
    for (const name of ['m1', 'm1b', 'm2', 'm3']) await from.rpc('basalt_member_detach', { name });
    expect(await from.rpc('basalt_link_get', {})).toEqual([]);
  });

  it('connects to a replica alone where the node has no link for it', async () => {
    const without = await serve(start(), diskPath('d0'), 1, []);
    const others = await serve(start(), diskPath('d1'), 1, ['nqn.2025-01.io.basalt:controller:other']);
    const from = start();
    const taken = await attach(without, { from, member: 'm1', replica: 'r1', epoch: 1 });
    expect(taken).toMatchObject({ incarnation: 'INCARNATION1', shared: false });
    expect(await attach(others, { from, member: 'm2', replica: 'r1', epoch: 1 })).toMatchObject({ shared: false });
  });

  it('fails all members of a link at once when its host is let in no longer', async () => {
    const node = await serve(start(), diskPath('d0'), 2, [hostnqn]);
    const from = start();
    for (const i of [1, 2]) await attach(node, { from, member: `m${i}`, replica: `r${i}`, epoch: 1 });
    const handles = await Promise.all([1, 2].map((i) => from.openBdev(`m${i}`)));
    await node.engine.rpc('nvmf_subsystem_remove_host', { nqn: linkNqn, host: hostnqn });
    for (const handle of handles) await expect(handle.write(0, filled(1))).rejects.toMatchObject({ isPathError: true });
    await Promise.all(handles.map((handle) => handle.close()));
  });

  it('lets nobody attach by a link what the replica itself does not let in', async () => {
    const node = await serve(start(), diskPath('d0'), 1, [hostnqn]);
    await node.engine.rpc('nvmf_subsystem_remove_host', { nqn: nqnOf('r1'), host: hostnqn });
    const refused = attach(node, { from: start(), member: 'm1', replica: 'r1', epoch: 1 });
    await expectRefusal(refused, 'permission', nqnOf('r1'));
  });

  it('puts no namespaces into a link', async () => {
    const node = await serve(start(), diskPath('d0'), 1, [hostnqn]);
    await node.engine.rpc('bdev_malloc_create', { name: 'm', num_blocks: 256, block_size: 4096 });
    const adding = node.engine.rpc('nvmf_subsystem_add_ns', { nqn: linkNqn, namespace: { bdev_name: 'm' } });
    await expectRefusal(adding, 'invalid', 'link');
  });

  it('has a replica keep a note, by link or without one, for who drives it and no one else', async () => {
    for (const [hosts, path] of [
      [[hostnqn], 'd5'],
      [[], 'd6'],
    ] as const) {
      const node = await serve(start(), diskPath(path), 1, hosts);
      const from = start();
      const { shared } = await attach(node, { from, member: 'm1', replica: 'r1', epoch: 5 });
      expect(shared).toBe(hosts.length > 0);
      expect(await from.rpc('basalt_member_read_note', { name: 'm1' })).toEqual({ note: '' });
      const note = '00ff'.repeat(472);
      await from.rpc('basalt_member_write_note', { name: 'm1', note });
      await attach(node, { from, member: 'm2', replica: 'r1', epoch: 6 });
      expect(await from.rpc('basalt_member_read_note', { name: 'm2' })).toEqual({ note });
      await expectRefusal(from.rpc('basalt_member_write_note', { name: 'm1', note: '01' }), 'fenced', 'm1');
      await expectRefusal(from.rpc('basalt_member_read_note', { name: 'm1' }), 'fenced', 'm1');
      await expectRefusal(from.rpc('basalt_member_read_note', { name: 'm9' }), 'notFound', 'm9');
      for (const wrong of ['', '0', 'xy', '00'.repeat(945)])
        await expectRefusal(from.rpc('basalt_member_write_note', { name: 'm2', note: wrong }), 'invalidParams', 'note');
      const [lvol] = await node.engine.rpc('bdev_lvol_get_lvols', { notes: true });
      expect(lvol).toMatchObject({ note, epoch: '6' });
      expect((await node.engine.rpc('bdev_lvol_get_lvols', {}))[0]).not.toHaveProperty('note');
    }
  });
}
