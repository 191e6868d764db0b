// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import type { Mutation } from './backend.js';
import { Journal } from './journal.js';

const compacted = (revision: number): Mutation => ({ kind: 'compacted', revision });

describe('journal', () => {
  it('tells of a change only after the commit that holds it, in order, several to a commit', async () => {
    const log: string[] = [];
    const gates: (() => void)[] = [];
    const commit = async (mutations: readonly Mutation[]): Promise<void> => {
      log.push(`commit ${mutations.length}`);
      await new Promise<void>((resolve) => gates.push(resolve));
    };
    const journal = new Journal(commit, () => expect.unreachable());
    journal.append([compacted(1)], () => log.push('published 1'));
    const first = journal.settled().then(() => log.push('settled 1'));
    await expect.poll(() => gates.length).toBe(1);
    journal.append([compacted(2)], () => log.push('published 2'));
    journal.append([compacted(3)], () => log.push('published 3'));
    const second = journal.settled().then(() => log.push('settled 3'));
    expect(log).toEqual(['commit 1']);
    gates[0]!();
    await first;
    await expect.poll(() => gates.length).toBe(2);
    expect(log.slice(0, 2)).toEqual(['commit 1', 'published 1']);
    expect(log.slice(2).sort()).toEqual(['commit 2', 'settled 1']);
    gates[1]!();
    await second;
    expect(log.slice(4)).toEqual(['published 2', 'published 3', 'settled 3']);
    await journal.settled();
    await journal.drained();
  });

  it('refuses everything after a commit that failed, and publishes none of it', async () => {
    const failures: unknown[] = [];
    let commits = 0;
    const commit = async (): Promise<void> => {
      commits += 1;
      throw new Error('no space left on device');
    };
    const journal = new Journal(commit, (error) => failures.push(error));
    journal.append([compacted(1)], () => expect.unreachable());
    await expect(journal.settled()).rejects.toThrow('etcdserver: server stopped');
    await expect(journal.settled()).rejects.toThrow('etcdserver: server stopped');
    expect(() => journal.append([compacted(2)], () => expect.unreachable())).toThrow('etcdserver: server stopped');
    await journal.drained();
    expect(failures).toHaveLength(1);
    expect(commits).toBe(1);
  });
});
