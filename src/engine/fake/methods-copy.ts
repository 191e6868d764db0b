// SPDX-License-Identifier: Apache-2.0
//
// The fake's way to read another engine's namespace, and to make one bdev equal to another. Of the host's options it
// knows those that nodes use among themselves.

import { Association } from './association.js';
import { type FakeBdev, type FakeIo, isIoStatus, makeBdev } from './bdev.js';
import type { Fields } from './fields.js';
import type { Handler } from './methods-bdev.js';
import { assertPort, memberKeepAliveMs, reachPeer } from './methods-leg.js';
import { keyNames, needKeys, readPolicy, secretsOf } from './methods-nvmf.js';
import { hostPathError, Refused } from './refusal.js';
import { reservationStatus as status } from './reservation-rules.js';
import type { EngineState } from './state.js';

const connectMs = 2_000;
const blocksMax = 2 ** 20;
const user = 'basalt_bdev_copy';

async function attachController(state: EngineState, fields: Fields): Promise<string[]> {
  const name = fields.string('name');
  fields.choice('trtype', ['TCP']);
  const traddr = fields.string('traddr');
  const trsvcid = fields.string('trsvcid');
  const subnqn = fields.string('subnqn');
  const hostnqn = fields.string('hostnqn');
  const hostid = fields.uuidOr('hostid', () => state.network.random.uuid());
  for (const option of ['ctrlr_loss_timeout_sec', 'fast_io_fail_timeout_sec', 'keep_alive_ms'])
    fields.naturalOr(option, 1, 1);
  assertPort(fields, trsvcid);
  const names = keyNames(fields);
  readPolicy(fields);
  fields.end();
  needKeys(state, names);
  const secrets = secretsOf(state, names);
  const bdevName = `${name}n1`;
  state.assertFree(bdevName);
  state.attaching.add(bdevName);
  try {
    const peer = await reachPeer(state, traddr, trsvcid, connectMs);
    const { bdev, reservation } = peer.connect(subnqn, hostnqn, secrets);
    const onLost = (): void => {};
    const association = new Association({ from: state.engine, to: peer, keepAliveMs: memberKeepAliveMs, onLost });
    const io = reservation.guard(bdev, hostid);
    state.bdevs.set(bdevName, remoteBdev(bdevName, { remote: bdev, io }, association));
    state.remotes.set(bdevName, async (command) => {
      const path = (await association.pass()) ? status.anaInaccessible : status.hostPathError;
      if (path === status.hostPathError || !peer.isAccessible(subnqn, traddr, trsvcid))
        return { status: path, text: 'no path' };
      return reservation.run(hostid, command);
    });
    return [bdevName];
  } finally {
    state.attaching.delete(bdevName);
  }
}

function remoteBdev(
  name: string,
  { remote, io }: { remote: FakeBdev; io: FakeIo },
  association: Association,
): FakeBdev {
  const run = async <T>(act: () => Promise<T>): Promise<T> => {
    if (!(await association.pass())) throw hostPathError();
    return act();
  };
  const { uuid, blockBytes, numBlocks } = remote;
  const bdev = makeBdev(
    { name, product: 'nvme', uuid, blockBytes, numBlocks },
    {
      read: (offset, count) => run(() => io.read(offset, count)),
      write: (offset, data) => run(() => io.write(offset, data)),
      flush: () => run(() => io.flush()),
    },
  );
  bdev.close = () => association.close();
  return bdev;
}

function detachController(state: EngineState, fields: Fields): true {
  const name = fields.string('name');
  fields.end();
  if (!state.bdevs.has(`${name}n1`)) throw new Refused('notFound', `controller ${name} does not exist`);
  state.destroy(`${name}n1`, 'nvme');
  state.remotes.delete(`${name}n1`);
  return true;
}

async function copyBdev(state: EngineState, fields: Fields): Promise<{ written_blocks: number }> {
  const names = { source: fields.string('source'), target: fields.string('target') };
  const offset = fields.natural('offset_blocks');
  const count = fields.natural('num_blocks', 1, blocksMax);
  const flush = fields.booleanOr('flush', false);
  fields.end();
  if (names.source === names.target) throw new Refused('invalid', 'target: must be another bdev than the source');
  const source = state.open(names.source, user);
  try {
    const target = state.open(names.target, user);
    try {
      for (const bdev of [source, target])
        if (offset + count > bdev.numBlocks)
          throw new Refused('invalid', `${bdev.name} has ${bdev.numBlocks} blocks, not ${offset + count}`);
      return { written_blocks: await copy(source, target, { offset, count, flush }) };
    } finally {
      state.closeUse(target, user);
    }
  } catch (error) {
    if (isIoStatus(error)) throw new Refused('io', `${names.target}: ${error.message}`);
    throw error;
  } finally {
    state.closeUse(source, user);
  }
}

async function copy(
  source: FakeBdev,
  target: FakeBdev,
  of: { offset: number; count: number; flush: boolean },
): Promise<number> {
  const { blockBytes } = source;
  const wanted = await source.read(of.offset, of.count);
  const present = await target.read(of.offset, of.count);
  let written = 0;
  for (let at = 0; at < of.count; at++) {
    const block = wanted.subarray(at * blockBytes, (at + 1) * blockBytes);
    if (Buffer.compare(block, present.subarray(at * blockBytes, (at + 1) * blockBytes)) === 0) continue;
    await target.write(of.offset + at, block);
    written += 1;
  }
  if (of.flush) await target.flush();
  return written;
}

export const copyMethods: Record<string, Handler> = {
  bdev_nvme_attach_controller: attachController,
  bdev_nvme_detach_controller: detachController,
  basalt_bdev_copy: copyBdev,
};
