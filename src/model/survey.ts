// SPDX-License-Identifier: Apache-2.0
//
// What is found on disks when the store is lost, what an operator may choose, and what comes of it.

import type { ConfigurationCopy } from './configuration-copy.js';
import type { FoundNote } from './set-note.js';

export interface SurveyedLvol {
  readonly name: string;
  readonly isSnapshot: boolean;
  /** The highest epoch that it ever obeyed; null: the gate cannot be read. */
  readonly epoch: number | null;
  readonly note: FoundNote;
}

export interface SurveyedDisk {
  readonly node: string;
  readonly path: string;
  /** Of its lvstore. */
  readonly id: string;
  /** That its lvstore belongs to. */
  readonly cluster: string;
  /** Null: it has none that counts. */
  readonly copy: ConfigurationCopy | null;
  readonly problems: readonly string[];
  readonly lvols: readonly SurveyedLvol[];
}

/** When something was so: revisions of different generations of the store are not to be compared. */
export interface Moment {
  readonly generation: number;
  readonly revision: number;
}

export function compareMoments(a: Moment, b: Moment): number {
  return a.generation === b.generation ? a.revision - b.revision : a.generation - b.generation;
}

export interface RebuildChoice {
  /** Volumes that begin with what is left of them. */
  readonly acceptLoss: ReadonlySet<string>;
  /** Volumes that are not in the new store. */
  readonly leaveOut: ReadonlySet<string>;
}

export interface VolumeVerdict {
  readonly id: string;
  readonly name: string;
  readonly sizeBytes: number;
  /** `waits`: it needs disks that were not seen. `lost`: too little is left to begin with, whatever is accepted. */
  readonly is: 'whole' | 'waits' | 'accepted' | 'lost' | 'left out';
  /** What was found of it, of legs that are not whole. */
  readonly problems: readonly string[];
}

/** What was in the store once, and was not at last. */
export interface GoneObject {
  readonly key: string;
  readonly text: string;
  readonly why: string;
}

export interface RebuildFindings {
  readonly cluster: string;
  readonly generation: number;
  readonly volumes: readonly VolumeVerdict[];
  /** Disks that the configuration names and that were not seen. */
  readonly missingDisks: readonly { readonly id: string; readonly node: string; readonly path: string }[];
  readonly gone: readonly GoneObject[];
  /** What is wrong with what disks keep. */
  readonly problems: readonly string[];
  /** Why it cannot be carried out; none: it can. */
  readonly obstacles: readonly string[];
}
