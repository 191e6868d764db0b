// SPDX-License-Identifier: Apache-2.0
//
// What an engine promises beyond SPDK's vocabulary. A cluster rests on these: an engine without them can serve bdevs,
// and can hold no replica of a volume.

export type Capability =
  | 'events'
  | 'member gate'
  | 'consent before shrinking'
  | 'write-intent marks'
  | 'partial stripes without a write hole'
  | 'volume snapshots at one instant'
  | 'block states'
  | 'encryption at rest';

/** The method that comes with each promise; an engine that has the one has the other. */
const methodOf: Readonly<Record<Capability, string>> = Object.freeze({
  events: 'basalt_peer_watch',
  'member gate': 'basalt_member_attach',
  'consent before shrinking': 'basalt_leg_remove_member',
  'write-intent marks': 'basalt_leg_keep_marks',
  'partial stripes without a write hole': 'basalt_raid_load',
  'volume snapshots at one instant': 'basalt_slot_snapshot',
  'block states': 'basalt_lvstore_fsck',
  'encryption at rest': 'bdev_crypto_create',
});

export const allCapabilities = Object.keys(methodOf) as readonly Capability[];

export interface Capabilities {
  /** As the engine gives it: "Basalt v0.1.0", "SPDK v26.05". */
  readonly version: string;
  readonly methods: ReadonlySet<string>;
  has(capability: Capability): boolean;
  readonly missing: readonly Capability[];
}

export function capabilitiesOf(version: string, methods: readonly string[]): Capabilities {
  const known = new Set(methods);
  const has = (capability: Capability): boolean => known.has(methodOf[capability]);
  return { version, methods: known, has, missing: allCapabilities.filter((capability) => !has(capability)) };
}
