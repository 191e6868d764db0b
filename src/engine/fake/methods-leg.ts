// SPDX-License-Identifier: Apache-2.0
//
// The fake's members, legs and peer watches: what reaches from one engine to another.

import type { LegResync, LinkDescription } from '../descriptions.js';
import { Association } from './association.js';
import { type FakeBdev, followSize, makeBdev } from './bdev.js';
import { Fields } from './fields.js';
import { LegIo } from './leg.js';
import type { Handler } from './methods-bdev.js';
import { keyNames, needKeys, readPolicy, secretsOf } from './methods-nvmf.js';
import { hostPathError, IoStatus, Refused, reservationConflict } from './refusal.js';
import { discoveryNqn, type EngineState, type FakeMember } from './state.js';

export const memberKeepAliveMs = 1000;
/** One for the admin queue, four for I/O. */
const linkConnections = 5;
const tailBytes = 2 ** 20;
const noteBytesMax = 944;

export function assertPort(fields: Fields, trsvcid: string): void {
  if (!/^\d{1,5}$/.test(trsvcid) || Number(trsvcid) < 1 || Number(trsvcid) > 65535)
    fields.refuse('trsvcid', 'must be a port from 1 to 65535');
}

async function attachMember(state: EngineState, fields: Fields): Promise<unknown> {
  const request = {
    name: fields.string('name'),
    traddr: fields.string('traddr'),
    trsvcid: fields.string('trsvcid'),
    subnqn: fields.string('subnqn'),
    hostnqn: fields.string('hostnqn'),
    epoch: fields.epoch('epoch'),
  };
  const linkNqn = fields.has('link_nqn') ? fields.string('link_nqn') : null;
  const names = keyNames(fields);
  readPolicy(fields);
  const timeoutMs = fields.natural('timeout_ms', 1, 600_000);
  fields.naturalOr('command_timeout_ms', 1000, 1, 600_000);
  assertPort(fields, request.trsvcid);
  fields.end();
  needKeys(state, names);
  const secrets = secretsOf(state, names);
  state.assertFree(request.name);
  state.attaching.add(request.name);
  try {
    const peer = await reachPeer(state, request.traddr, request.trsvcid, timeoutMs);
    const { hostnqn } = request;
    const link = linkNqn !== null && peer.hasNodeLink(linkNqn, hostnqn) ? linkNqn : null;
    const taken = peer.takeOver(request.subnqn, { hostnqn, secrets, link }, request.epoch);
    const shared = { address: `${request.traddr}:${request.trsvcid}`, hostnqn };
    publishMember(state, request.name, { ...taken, link: link === null ? null : shared }, peer);
    const { numBlocks, blockBytes } = taken.bdev;
    return { incarnation: taken.incarnation, num_blocks: numBlocks, block_size: blockBytes, shared: link !== null };
  } finally {
    state.attaching.delete(request.name);
  }
}

type Peer = EngineState['engine'];

/** The engine at that address, once it answers; refused or timed out otherwise. */
export async function reachPeer(state: EngineState, traddr: string, trsvcid: string, timeoutMs: number): Promise<Peer> {
  const { network, engine } = state;
  const until = network.clock.now() + timeoutMs;
  for (;;) {
    await engine.turn();
    const peer = network.at(traddr, trsvcid);
    const reach = network.reach(engine, peer);
    if (peer === null || reach === 'refused')
      throw new Refused('unreachable', `connect to ${traddr}:${trsvcid}: Connection refused`);
    if (reach === 'connected') return peer;
    const left = until - network.clock.now();
    if (left <= 0) throw new Refused('timedOut', `no answer from ${traddr}:${trsvcid} within ${timeoutMs} ms`);
    await network.clock.sleep(Math.min(left, 10));
  }
}

interface Taken {
  readonly bdev: FakeBdev;
  readonly incarnation: string;
  readonly connection: string;
  readonly link: { readonly address: string; readonly hostnqn: string } | null;
}

function publishMember(state: EngineState, name: string, taken: Taken, peer: Peer): void {
  const association = new Association({
    from: state.engine,
    to: peer,
    keepAliveMs: memberKeepAliveMs,
    onLost: (reason) => state.members.get(name)?.leg?.memberLost(name, reason),
  });
  const run = async <T>(act: () => Promise<T>): Promise<T> => {
    if (!(await association.pass())) throw hostPathError();
    peer.admit(taken.connection);
    return act();
  };
  const { uuid, blockBytes, numBlocks } = taken.bdev;
  const io = {
    read: (offset: number, count: number) => run(() => taken.bdev.read(offset, count)),
    write: (offset: number, data: Uint8Array) => run(() => taken.bdev.write(offset, data)),
    flush: () => run(() => taken.bdev.flush()),
  };
  const bdev = followSize(
    makeBdev({ name, product: 'member', uuid, blockBytes, numBlocks }, io),
    () => taken.bdev.numBlocks,
  );
  bdev.close = () => {
    association.close();
    peer.forget(taken.connection);
  };
  state.bdevs.set(name, bdev);
  const snapshot = (called: string): Promise<void> => run(async () => peer.snapshot(taken.connection, called));
  const writeNote = (note: string): Promise<void> => run(async () => peer.writeNote(taken.connection, note));
  const readNote = (): Promise<string> => run(async () => peer.readNote(taken.connection));
  state.members.set(name, { bdev, association, link: taken.link, snapshot, writeNote, readNote, leg: null });
}

function memberOf(state: EngineState, name: string): FakeMember {
  const found = state.members.get(name);
  if (found === undefined) throw new Refused('notFound', `member ${name} does not exist`);
  return found;
}

async function asReplicaCommand<T>(name: string, command: Promise<T>): Promise<T> {
  try {
    return await command;
  } catch (error) {
    if (!(error instanceof IoStatus)) throw error;
    throw new Refused(
      error.status === reservationConflict().status ? 'fenced' : 'unreachable',
      `${name}: note: ${error.message}`,
    );
  }
}

async function writeNote(state: EngineState, fields: Fields): Promise<true> {
  const name = fields.string('name');
  const note = fields.hex('note', noteBytesMax);
  fields.end();
  await asReplicaCommand(name, memberOf(state, name).writeNote(note));
  return true;
}

async function readNote(state: EngineState, fields: Fields): Promise<{ note: string }> {
  const name = fields.string('name');
  fields.end();
  return { note: await asReplicaCommand(name, memberOf(state, name).readNote()) };
}

function createLeg(state: EngineState, fields: Fields): unknown {
  const name = fields.string('name');
  const epoch = fields.epoch('epoch');
  const members = fields.array('members', 1, 8).map((item, index) => {
    const each = new Fields(item, `params.members[${index}]`);
    const member = { name: each.string('name'), inSync: each.boolean('in_sync') };
    readReplica(each);
    each.end();
    return member;
  });
  const allDirty = fields.boolean('all_dirty');
  fields.natural('lease_ms', 1, 1000);
  const sizeBlocks = fields.naturalOr('num_blocks', 0, 1);
  const identity = fields.stringOr('identity', '');
  fields.naturalOr('grown_num_blocks', 0);
  if (fields.has('replicas')) fields.strings('replicas', 1, 16);
  const data = fields.naturalOr('data_members', 0, 2, 16);
  const parity = fields.naturalOr('parity_members', 0, 1, 4);
  fields.end();
  if (data > 0 || parity > 0) throw new Refused('unsupported', 'the fake has mirrors only');
  if (!members.some((member) => member.inSync)) fields.refuse('members', 'at least one must be in sync');
  state.assertFree(name);
  const names = members.map((member) => member.name);
  const bdevs = state.claim(names, `leg ${name}`);
  const [first] = bdevs;
  if (first === undefined) throw new Refused('invalid', 'no members');
  const { blockBytes } = first;
  const smallest = Math.min(...bdevs.map((bdev) => bdev.numBlocks));
  if (sizeBlocks > 0 && smallest < sizeBlocks + tailBytes / blockBytes)
    fields.refuse('num_blocks', 'members have no room for so many blocks and a tail of 1 MiB');
  const numBlocks = sizeBlocks === 0 ? smallest : sizeBlocks;
  const tailBlocks = sizeBlocks === 0 ? 0 : tailBytes / blockBytes;
  const entry = { io: null as unknown as LegIo, epoch, sequence: 0, tailBlocks, identity };
  entry.io = new LegIo(
    bdevs.filter((_, index) => members[index]?.inSync === true),
    {
      // Whole legs are marked here, or nothing.
      allDirty: allDirty && !state.network.settledLegs.has(identity),
      numBlocks,
      marks: { set: () => state.network.settledLegs.delete(identity) },
    },
    {
      memberFailed: (member, reason) => {
        entry.sequence += 1;
        state.emit({ method: 'leg_member_failed', params: { leg: name, member, reason, sequence: entry.sequence } });
      },
      memberCopied: (member) =>
        state.emit({ method: 'leg_member_copied', params: { leg: name, member, ...resyncOf(entry.io.numBlocks) } }),
      joiningFailed: (member, reason) =>
        state.emit({ method: 'leg_joining_failed', params: { leg: name, member, reason } }),
      fenced: () => state.emit({ method: 'leg_fenced', params: { leg: name, epoch: epoch.toString() } }),
      clean: () => state.emit({ method: 'leg_clean', params: { leg: name } }),
    },
  );
  const uuid = state.network.random.uuid();
  const shape = { name, product: 'leg', uuid, blockBytes, numBlocks, children: names };
  const bdev = followSize(makeBdev(shape, entry.io), () => entry.io.numBlocks);
  state.bdevs.set(name, bdev);
  state.legs.set(name, entry);
  for (const member of names) setLeg(state, member, entry.io);
  members.forEach((member, index) => {
    const joining = bdevs[index];
    if (!member.inSync && joining !== undefined) entry.io.add(joining);
  });
  if (entry.io.dirty) void entry.io.clean();
  else if (allDirty) void Promise.resolve().then(() => state.emit({ method: 'leg_clean', params: { leg: name } }));
  return { num_blocks: numBlocks };
}

/** The fake keeps no marks: every resync is a full one. */
function resyncOf(numBlocks: number): LegResync {
  return { resync: 'full', copied_blocks: numBlocks, to_copy_blocks: numBlocks };
}

function readReplica(fields: Fields): void {
  fields.stringOr('replica', '');
  fields.naturalOr('distance', 0, 0, 1000);
}

function setLeg(state: EngineState, member: string, leg: LegIo | null): void {
  const found = state.members.get(member);
  if (found === undefined) return;
  found.leg = leg;
  if (leg !== null && found.association.lost) leg.memberLost(member, 'the connection was lost');
}

function legOf(state: EngineState, fields: Fields): { name: string; leg: LegIo; epoch: bigint } {
  const name = fields.string('name');
  state.bdev(name, 'leg');
  const found = state.legs.get(name);
  if (found === undefined) throw new Refused('notFound', `leg ${name} does not exist`);
  return { name, leg: found.io, epoch: found.epoch };
}

/** A member that left is its own bdev again, which can be detached. */
function freeMember(state: EngineState, legName: string, member: string): void {
  const children = state.bdev(legName).children;
  const index = children.indexOf(member);
  if (index >= 0) children.splice(index, 1);
  state.release([member]);
  setLeg(state, member, null);
}

function onMember(
  act: (state: EngineState, legName: string, leg: LegIo, member: string) => void,
  readMore?: (fields: Fields) => void,
): Handler {
  return (state, fields) => {
    const { name, leg } = legOf(state, fields);
    const member = fields.string('member');
    readMore?.(fields);
    fields.end();
    act(state, name, leg, member);
    return true;
  };
}

function getLeg(state: EngineState, fields: Fields): unknown {
  const { leg, epoch } = legOf(state, fields);
  fields.end();
  return {
    epoch: epoch.toString(),
    state: leg.fenced ? 'fenced' : leg.waiting ? 'waiting' : 'active',
    members: leg.members.map((member) => ({
      name: member.bdev.name,
      state: member.failed ? 'failed' : member.state,
      synced_blocks: member.syncedBlocks,
      repaired_blocks: 0,
      ...(member.state === 'in_sync'
        ? { resync: 'none', copied_blocks: 0, to_copy_blocks: 0 }
        : { resync: 'full', copied_blocks: member.syncedBlocks, to_copy_blocks: leg.numBlocks }),
    })),
    dirty_regions: leg.dirty ? 1 : 0,
    region_count: 1,
    marked_regions: 0,
    mark_region_count: 0,
    hedged_reads: 0,
    scrub: leg.scrub,
  };
}

function watchPeer(state: EngineState, fields: Fields): string {
  const name = fields.string('name');
  const traddr = fields.string('traddr');
  const trsvcid = fields.string('trsvcid');
  const keepAliveMs = fields.natural('keep_alive_ms', 100, 60_000);
  const hostnqn = fields.stringOr('hostnqn', '');
  const names = fields.has('psk') ? { psk: fields.string('psk') } : {};
  assertPort(fields, trsvcid);
  fields.end();
  needKeys(state, names);
  const { psk } = secretsOf(state, names);
  if (state.peers.has(name)) throw new Refused('exists', `peer watch ${name} exists`);
  const { network, engine } = state;
  let association: Association | null = null;
  let refused = false;
  let denied = false;
  const connect = (): void => {
    const peer = network.at(traddr, trsvcid);
    if (association !== null || !state.peers.has(name)) return;
    if (network.reach(engine, peer) === 'refused' && !refused) {
      refused = true;
      denied = false;
      state.emit({ method: 'peer_refused', params: { name, reason: `${traddr}:${trsvcid} refused` } });
    }
    if (peer === null) return;
    if (network.reach(engine, peer) !== 'connected' || !peer.serves(discoveryNqn, traddr, trsvcid)) return;
    if (!peer.letsIn(hostnqn, psk, { traddr, trsvcid })) {
      if (!denied)
        state.emit({ method: 'peer_denied', params: { name, reason: "the target refuses this host's key" } });
      denied = true;
      refused = false;
      return;
    }
    const onLost = (reason: string): void => {
      association = null;
      state.emit({ method: 'peer_lost', params: { name, reason } });
      later();
    };
    association = new Association({ from: engine, to: peer, keepAliveMs, onLost });
    refused = false;
    denied = false;
    state.emit({ method: 'peer_connected', params: { name } });
  };
  const later = (): void => void network.clock.setTimer(0, connect);
  const unwatch = network.watch(later);
  const stop = (): void => {
    unwatch();
    association?.close();
  };
  state.peers.set(name, { stop });
  later();
  return name;
}

/** A link is there as long as a member goes by it. */
function linksOf(state: EngineState): LinkDescription[] {
  const links = new Map<string, LinkDescription>();
  for (const { link, association } of state.members.values()) {
    if (link === null || association.lost) continue;
    const { address, hostnqn } = link;
    const known = links.get(`${address} ${hostnqn}`);
    if (known !== undefined) known.members += 1;
    else
      links.set(`${address} ${hostnqn}`, { address, hostnqn, state: 'live', connections: linkConnections, members: 1 });
  }
  return [...links.values()];
}

export const legMethods: Record<string, Handler> = {
  basalt_member_attach: attachMember,
  basalt_member_detach: (state, fields) => {
    const name = fields.string('name');
    fields.end();
    state.destroy(name, 'member');
    state.members.delete(name);
    return true;
  },
  basalt_member_write_note: writeNote,
  basalt_member_read_note: readNote,
  basalt_link_get: (state, fields) => {
    fields.end();
    return linksOf(state);
  },
  basalt_leg_create: createLeg,
  basalt_leg_get: getLeg,
  basalt_leg_remove_member: onMember((state, name, leg, member) => {
    leg.remove(member);
    freeMember(state, name, member);
  }),
  basalt_leg_add_member: onMember((state, name, leg, member) => {
    const [bdev] = state.claim([member], `leg ${name}`);
    if (bdev === undefined) return;
    try {
      if (bdev.numBlocks < leg.numBlocks + (state.legs.get(name)?.tailBlocks ?? 0))
        throw new Refused('invalid', `${member}: too small or of another block size`);
      leg.add(bdev);
    } catch (error) {
      state.release([member]);
      throw error;
    }
    state.bdev(name).children.push(member);
    setLeg(state, member, leg);
  }, readReplica),
  basalt_leg_commit_member: onMember((_state, _name, leg, member) => leg.commit(member)),
  basalt_leg_abandon_member: onMember((state, name, leg, member) => {
    leg.abandon(member);
    freeMember(state, name, member);
  }),
  basalt_leg_resize: (state, fields) => {
    const { name, leg } = legOf(state, fields);
    const numBlocks = fields.natural('num_blocks', 1, 2 ** 44);
    fields.end();
    leg.grow(numBlocks, state.legs.get(name)?.tailBlocks ?? 0);
    return true;
  },
  basalt_leg_keep_marks: (state, fields) => {
    legOf(state, fields);
    fields.strings('replicas', 1, 16);
    fields.end();
    return true;
  },
  basalt_leg_settle: async (state, fields) => {
    const { name, leg } = legOf(state, fields);
    fields.end();
    const clean = await leg.settle();
    const whole = leg.members.every((member) => member.state === 'in_sync');
    const identity = state.legs.get(name)?.identity ?? '';
    if (clean && whole && identity !== '') state.network.settledLegs.add(identity);
    return { clean, marked_regions: state.network.settledLegs.has(identity) ? 0 : 1 };
  },
  basalt_leg_set_resync: (state, fields) => {
    const { leg } = legOf(state, fields);
    fields.naturalOr('bytes_per_s', 0);
    const paused = fields.booleanOr('paused', false);
    fields.end();
    leg.pause(paused);
    return true;
  },
  basalt_leg_scrub_start: (state, fields) => {
    const { name, leg } = legOf(state, fields);
    fields.naturalOr('bytes_per_s', 0);
    const repair = fields.booleanOr('repair', true);
    fields.end();
    leg.startScrub(repair, (scrub) => state.emit({ method: 'leg_scrub', params: { leg: name, ...scrub } }));
    return true;
  },
  basalt_leg_scrub_stop: (state, fields) => {
    legOf(state, fields);
    fields.end();
    return true;
  },
  basalt_leg_fence: (state, fields) => {
    const { leg } = legOf(state, fields);
    fields.end();
    leg.fence();
    return true;
  },
  basalt_leg_delete: (state, fields) => {
    const { name, leg } = legOf(state, fields);
    fields.end();
    const members = [...state.bdev(name).children];
    state.destroy(name, 'leg');
    leg.fence();
    state.legs.delete(name);
    for (const member of members) setLeg(state, member, null);
    return true;
  },
  basalt_peer_watch: watchPeer,
  basalt_peer_unwatch: (state, fields) => {
    const name = fields.string('name');
    fields.end();
    const found = state.peers.get(name);
    if (found === undefined) throw new Refused('notFound', `peer watch ${name} does not exist`);
    state.peers.delete(name);
    found.stop();
    return true;
  },
};
