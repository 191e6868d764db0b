// SPDX-License-Identifier: Apache-2.0
//
// Whether this controller should try to drive a volume now. Trying is always safe: the store's compare-and-swap and the
// replicas' gates decide. This only keeps several standbys from trying at once, and from taking what works.

import { isUndriven } from '../model/generation.js';
import { isGrantInstance } from '../model/grant.js';
import type { Leadership } from '../model/objects.js';

export interface PromotionView {
  readonly me: string;
  readonly leadership: Leadership;
  /** The volume's controllers, in the order of preference. */
  readonly order: readonly string[];
  /** Names whose lease is alive and that are not handing over. */
  readonly candidates: ReadonlySet<string>;
  /** Names whose lease is alive, handing over or not. */
  readonly alive: ReadonlySet<string>;
  /** Names whose connection broke after it had stood. */
  readonly lost: ReadonlySet<string>;
  /** Whom the last holder handed the volume over to, by name. */
  readonly successor?: string | null;
  /** This process drives the volume, or is on the way to. */
  readonly driving: boolean;
}

export type PromotionDecision =
  | { readonly do: 'nothing'; readonly why: string }
  | { readonly do: 'promote'; readonly delayMs: number; readonly why: string };

export const standbyStepMs = 250;
/**
 * The same for a volume that nobody drove yet: no host waits for it, and among a thousand that are made at once each
 * standby that comes because the first one is busy makes everybody busier.
 */
export const firstStepMs = 2_000;
/** How long the others leave a volume to the one that it was handed over to. */
export const successorGraceMs = 500;

export function decidePromotion(view: PromotionView): PromotionDecision {
  const { me } = view;
  if (view.driving) return { do: 'nothing', why: 'drives it already' };
  if (!view.order.includes(me)) return { do: 'nothing', why: 'is not among its controllers' };
  if (!view.candidates.has(me)) return { do: 'nothing', why: 'is handing over' };
  const holder = holderOf(view);
  if (holder === me) return { do: 'promote', delayMs: 0, why: 'held it before this process began' };
  if (holder !== null && view.alive.has(holder) && !view.lost.has(holder))
    return { do: 'nothing', why: `${holder} drives it` };
  const successor = successorOf(view);
  if (successor === me) return { do: 'promote', delayMs: 0, why: 'it was handed over to this node' };
  const standbys = view.order.filter((name) => name !== holder && view.candidates.has(name) && !view.lost.has(name));
  const rank = Math.max(0, standbys.indexOf(me));
  const why = holder === null ? 'nobody holds it' : `${holder} is gone`;
  const graceMs = successor === null ? 0 : successorGraceMs;
  const stepMs = isUndriven(view.leadership.epoch) ? firstStepMs : standbyStepMs;
  return { do: 'promote', delayMs: graceMs + rank * stepMs, why };
}

export interface SplitView {
  readonly me: string;
  readonly holder: string | null;
  /** The whole volume's controllers, in its order. */
  readonly order: readonly string[];
  /** Names that cannot be reached from here. */
  readonly cut: ReadonlySet<string>;
  /** It serves a part of the same volume, and so reaches replicas. */
  readonly serves: boolean;
  /** The holder has the right to some part. */
  readonly holderOwns: boolean;
}

/**
 * Whether this controller takes a part or a front of a volume with several active controllers from one that lives. Two that
 * lose each other, and nothing else, take what the other one had when they find out; then neither reaches the parts of the
 * other, and no front can be served by either. Of two that have parts, the first in the volume's order takes what the other one has;
 * one that has parts takes fronts from one that has none. Between two of them parts go one way for that reason, and fronts
 * follow, so it ends.
 */
export function endsSplit({ me, holder, order, cut, serves, holderOwns }: SplitView): boolean {
  if (holder === null || !serves || !cut.has(holder) || !order.includes(me)) return false;
  if (!holderOwns) return true;
  return !order.includes(holder) || order.indexOf(me) < order.indexOf(holder);
}

/** Null also when it was granted to one that has left the volume's controllers since, and so will not begin to use it. */
function holderOf({ leadership, order }: PromotionView): string | null {
  const { controller, instance, epoch } = leadership;
  const isGrant = instance === null || isGrantInstance(instance, epoch);
  return controller !== null && isGrant && !order.includes(controller) ? null : controller;
}

/** Only while nobody holds the volume, and while that one can be expected to come. */
function successorOf(view: PromotionView): string | null {
  const { leadership, successor = null } = view;
  if (leadership.controller !== null || successor === null) return null;
  const able = view.order.includes(successor) && view.candidates.has(successor) && !view.lost.has(successor);
  return able ? successor : null;
}
