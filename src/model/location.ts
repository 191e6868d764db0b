// SPDX-License-Identifier: Apache-2.0
//
// Where things stand: the tree of failure domains (region, zone, rack, node, disk), and what disks say about themselves.
//
// Invariants:  - a domain is named by its whole path, so that racks of one name in two zones are two domains
//              - a level that nobody named is one domain of that level: a node without a rack stands in the rack "" of its zone

import Type, { type Static } from 'typebox';

const strict = { additionalProperties: false } as const;

/** A name of a place, a class or a tag. */
const Word = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' });

export const DomainLevel = Type.Union([
  Type.Literal('region'),
  Type.Literal('zone'),
  Type.Literal('rack'),
  Type.Literal('node'),
  Type.Literal('disk'),
]);
export type DomainLevel = Static<typeof DomainLevel>;

/** From the widest to the narrowest. */
export const domainLevels: readonly DomainLevel[] = Object.freeze(['region', 'zone', 'rack', 'node', 'disk']);

/** Of a node. */
export const Location = Type.Object(
  { region: Type.Optional(Word), zone: Type.Optional(Word), rack: Type.Optional(Word) },
  strict,
);
export type Location = Static<typeof Location>;

export const DiskClass = Word;
export const DiskTags = Type.Array(Word, { maxItems: 16, uniqueItems: true });
/** 1 takes what its size is worth, 0.5 half of it, 0 nothing (what is there moves away). */
export const DiskWeight = Type.Number({ minimum: 0, maximum: 1 });

export const diskClassDefault = 'ssd';

/** What a pool looks for in a disk. Null and none: any. */
export const DiskSelector = Type.Object({ class: Type.Union([DiskClass, Type.Null()]), tags: DiskTags }, strict);
export type DiskSelector = Static<typeof DiskSelector>;

export function selects(selector: DiskSelector, disk: { class: string; tags: readonly string[] }): boolean {
  if (selector.class !== null && selector.class !== disk.class) return false;
  return selector.tags.every((tag) => disk.tags.includes(tag));
}

/** The path of the domain of `level` that the disk stands in. */
export function domainOf(level: DomainLevel, at: { location: Location; node: string; disk: string }): string {
  const { region = '', zone = '', rack = '' } = at.location;
  const path = [region, zone, rack, at.node, at.disk];
  return path.slice(0, domainLevels.indexOf(level) + 1).join('/');
}
