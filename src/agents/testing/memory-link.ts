// SPDX-License-Identifier: Apache-2.0
//
// A link to no store: its state is the truth. For tests of one agent, which change it in the middle of what the agent does.

import { ClusterState } from '../../model/cluster-state.js';
import type { ClusterLink, Commit } from '../cluster-link.js';

export class MemoryLink implements ClusterLink {
  readonly state = new ClusterState();
  /** Runs before each commit is looked at. */
  beforeCommit: (commit: Commit) => Promise<void> | void = () => {};
  readonly #revisions = new Map<string, number>();
  readonly #listeners = new Set<() => void>();
  #revision = 0;

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  put(key: string, text: string | null): void {
    this.#revision++;
    if (text === null) this.#revisions.delete(key);
    else this.#revisions.set(key, this.#revision);
    this.state.apply(key, text, this.#revision);
    for (const listener of this.#listeners) listener();
  }

  async commit(commit: Commit, _signal: AbortSignal): Promise<boolean> {
    await this.beforeCommit(commit);
    const holds = ({ key, revision }: { key: string; revision: number | null }): boolean =>
      (this.#revisions.get(key) ?? null) === revision;
    if (!(commit.expect ?? []).every(holds)) return false;
    for (const { key, text } of commit.put ?? []) this.put(key, text);
    for (const key of commit.remove ?? []) this.put(key, null);
    return true;
  }

  reservations(): never {
    throw new Error('nobody serves volumes here');
  }

  leadership(): never {
    throw new Error('nobody drives volumes here');
  }
}
