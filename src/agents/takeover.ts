// SPDX-License-Identifier: Apache-2.0
//
// Taking over the members of a volume under a new epoch: all at once, each with a short deadline. Members that cannot be
// reached are tried again as long as `again` says that waiting for them is worth it.

import { type Engine, isEngineError } from '../engine/engine.js';
import type { Clock } from '../env/clock.js';
import { nqns } from '../model/keys.js';
import type { Leadership, NodeAddress } from '../model/objects.js';
import type { MemberRef, TakenMember } from '../reconcile/membership.js';
import { type Logger, reason } from './context.js';
import type { Identity } from './node-identity.js';
import { pause } from './signal.js';

export interface ReplicaAddress extends NodeAddress {
  /** Of the node's link, which all members there share; null: it has none. */
  readonly linkNqn: string | null;
  /** The subsystem, and what the controller goes by there; absent: the replica's, and its own name. */
  readonly subnqn?: string;
  readonly as?: string;
  /** How long I/O may take before the member has failed; absent: the engine's word. */
  readonly commandTimeoutMs?: number;
}

/** Where a replica can be reached now; null: its node is not known to be up. */
export type ResolveReplica = (replica: string) => ReplicaAddress | null;

export interface AttachedMember extends TakenMember {
  /** The member's name in the engine. */
  readonly name: string;
}

export interface MemberAttacher {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Logger;
  readonly resolve: ResolveReplica;
  readonly controller: string;
  readonly identity: Identity;
}

export interface AttachRequest {
  readonly member: MemberRef;
  readonly epoch: number;
  /** Unique among all attachments that the engine knows. */
  readonly name: string;
  readonly timeoutMs: number;
}

export type AttachOutcome =
  | { readonly kind: 'taken'; readonly member: AttachedMember }
  | { readonly kind: 'fenced'; readonly epoch: number }
  | { readonly kind: 'unreached'; readonly detail: string; readonly refused: boolean };

export async function attachMember(
  attacher: MemberAttacher,
  request: AttachRequest,
  signal: AbortSignal,
): Promise<AttachOutcome> {
  const address = attacher.resolve(request.member.replica);
  if (address === null) return { kind: 'unreached', detail: 'its node is not up', refused: false };
  const { traddr, trsvcid, linkNqn, subnqn, commandTimeoutMs } = address;
  const place = {
    name: request.name,
    traddr,
    trsvcid,
    subnqn: subnqn ?? nqns.replica(request.member.replica),
    ...(linkNqn === null ? {} : { link_nqn: linkNqn }),
    ...(commandTimeoutMs === undefined ? {} : { command_timeout_ms: commandTimeoutMs }),
    epoch: request.epoch,
    timeout_ms: request.timeoutMs,
  };
  try {
    const credentials = await attacher.identity.credentials(
      attacher.engine,
      address.as ?? attacher.controller,
      address,
    );
    const params = { ...place, ...credentials };
    const options = { signal, timeoutMs: request.timeoutMs + rpcSlackMs };
    const taken = await attacher.engine.rpc('basalt_member_attach', params, options);
    return { kind: 'taken', member: { ...request.member, name: request.name, incarnation: taken.incarnation } };
  } catch (error) {
    // Whatever the engine may still finish of it is taken back.
    if (!isEngineError(error) || isEngineError(error, 'timedOut')) {
      await attacher.engine.rpc('basalt_member_detach', { name: request.name }).catch(() => {});
    }
    if (isEngineError(error, 'fenced'))
      return { kind: 'fenced', epoch: Number(error.data?.['epoch'] ?? request.epoch) };
    return { kind: 'unreached', detail: reason(error), refused: isEngineError(error, 'permission') };
  }
}

const rpcSlackMs = 500;

export interface Takeover {
  readonly taken: AttachedMember[];
  /** Highest epoch that a replica named when it refused; 0: none did. */
  readonly fencedBy: number;
}

export interface TakeoverRequest {
  readonly leadership: Leadership;
  readonly nameOf: (member: MemberRef) => string;
  readonly timeoutMs: number;
  readonly retryMs: number;
  /** Called for each member at once: one that was taken over is let go again also when the others never answer. */
  readonly onTaken: (member: AttachedMember) => void;
  /** Whether the members that are missing are worth another try; `refused`: one does not admit this controller (yet). */
  readonly again: (taken: readonly AttachedMember[], refused: boolean) => boolean;
}

export async function takeOver(
  attacher: MemberAttacher,
  request: TakeoverRequest,
  signal: AbortSignal,
): Promise<Takeover> {
  const taken: AttachedMember[] = [];
  let fencedBy = 0;
  for (;;) {
    const missing = membersOf(request.leadership).filter(
      (member) => !taken.some((entry) => entry.leg === member.leg && entry.replica === member.replica),
    );
    const outcomes = await Promise.all(
      missing.map((member) => {
        const attach = {
          member,
          epoch: request.leadership.epoch,
          name: request.nameOf(member),
          timeoutMs: request.timeoutMs,
        };
        return attachMember(attacher, attach, signal).then((outcome) => {
          if (outcome.kind === 'taken') request.onTaken(outcome.member);
          return outcome;
        });
      }),
    );
    signal.throwIfAborted();
    const refused = outcomes.some((outcome) => outcome.kind === 'unreached' && outcome.refused);
    outcomes.forEach((outcome, index) => {
      if (outcome.kind === 'taken') taken.push(outcome.member);
      else if (outcome.kind === 'fenced') fencedBy = Math.max(fencedBy, outcome.epoch);
      else
        attacher.log.debug({ replica: missing[index]?.replica, detail: outcome.detail }, 'replica was not taken over');
    });
    if (fencedBy > 0 || taken.length === membersOf(request.leadership).length || !request.again(taken, refused))
      return { taken, fencedBy };
    await pause(attacher.clock, request.retryMs, signal);
    signal.throwIfAborted();
  }
}

function membersOf(leadership: Leadership): MemberRef[] {
  return leadership.legs.flatMap(({ inSync }, leg) => inSync.map(({ replica }) => ({ leg, replica })));
}
