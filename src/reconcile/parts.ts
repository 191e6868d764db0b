// SPDX-License-Identifier: Apache-2.0
//
// What a volume with several active controllers is made of (decision 020). Pure.
//
// Invariants:  - striping over the parts, and in each part over its legs, is the striping over all legs: the legs are divided
//                evenly
//              - part i prefers the i-th controller, and so does front i

import { exportId, rotated } from '../model/multi-active.js';
import type { Leadership, VolumeObject } from '../model/objects.js';
import { formatVersion } from '../model/objects.js';
import { legDataBytes } from '../placement/leg-size.js';

interface Striped {
  readonly sizeBytes: number;
  readonly stripeSizeBytes: number;
  readonly parts?: readonly string[] | undefined;
}

/** Of each part, so that striping over all of them holds the volume; whole MiB. */
export function partSizeBytes({ sizeBytes, stripeSizeBytes, parts = [] }: Striped): number {
  return legDataBytes({ sizeBytes, stripeSizeBytes, legs: parts.length });
}

/** Why legs and controllers cannot be divided so; null: they can. */
export function whyNotDivided(at: { active: number; legs: number; controllers: number }): string | null {
  const { active, legs, controllers } = at;
  if (legs % active !== 0) return `must divide the number of legs, which is ${legs}`;
  if (controllers < active) return `needs as many controllers, and there are ${controllers}`;
  return null;
}

/** What a part becomes of what was drawn for it as a volume. */
export function asPart(drawn: VolumeObject, of: { volumeId: string; name: string; index: number }): VolumeObject {
  const name = `${of.name.slice(0, partNameMax)}.part${of.index}`;
  return { ...drawn, name, partOf: of.volumeId, controllers: rotated(drawn.controllers, of.index) };
}

/** Names have 63 characters. */
const partNameMax = 56;

/** Of a front that nobody served yet. Its members are the exports of the parts, one of each. */
export function firstFrontLeadership(front: string, at: { parts: readonly string[]; leaseMs: number }): Leadership {
  return {
    format: formatVersion,
    volumeId: front,
    epoch: 0,
    controller: null,
    instance: null,
    clean: true,
    leaseMs: at.leaseMs,
    legs: at.parts.map((part) => ({ inSync: [{ replica: exportId(part, front), incarnation: null }] })),
  };
}
