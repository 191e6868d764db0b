// SPDX-License-Identifier: Apache-2.0

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LineLog } from './line-log.js';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test('lines are the same however the bytes are cut, multi-byte characters included', () => {
  const text = 'first\r\nsecond é€\r\n\r\nlast without end';
  const whole = bytes(text);
  fc.assert(
    fc.property(fc.array(fc.nat(whole.length), { maxLength: 12 }), (cuts) => {
      const log = new LineLog();
      const edges = [0, ...cuts.sort((a, b) => a - b), whole.length];
      for (let i = 1; i < edges.length; i++) {
        log.push(whole.subarray(edges[i - 1], edges[i]));
      }
      log.close(new Error('over'));
      expect(log.lines).toEqual(['first', 'second é€', '', 'last without end']);
    }),
  );
});

test('a wait finds a line that is already there, and one that comes later', async () => {
  const log = new LineLog();
  log.push(bytes('MARK one\n'));
  expect((await log.waitFor(/^MARK (\w+)$/))[1]).toBe('one');
  const later = log.waitFor(/^MARK (two)$/);
  log.push(bytes('MARK t'));
  log.push(bytes('wo\n'));
  expect((await later)[1]).toBe('two');
});

test('a global pattern matches every line afresh', async () => {
  const log = new LineLog();
  const waiting = log.waitFor(/b/g);
  log.push(bytes('aab\n'));
  expect((await waiting)[0]).toBe('b');
  expect((await log.waitFor(/b/g))[0]).toBe('b');
});

test('a wait ends with its deadline, an abort or the end of the log', async () => {
  const log = new LineLog();
  log.push(bytes('the last words\n'));
  await expect(log.waitFor(/never/, { timeoutMs: 5 })).rejects.toMatchObject({
    code: 'LAB_WAIT_DEADLINE',
    message: expect.stringContaining('the last words'),
  });
  const controller = new AbortController();
  const aborted = log.waitFor(/never/, { signal: controller.signal });
  controller.abort();
  await expect(aborted).rejects.toMatchObject({ code: 'LAB_ABORTED' });
  await expect(log.waitFor(/never/, { signal: controller.signal })).rejects.toMatchObject({ code: 'LAB_ABORTED' });
  const cut = log.waitFor(/never/);
  log.close(new Error('guest is gone'));
  await expect(cut).rejects.toThrow('guest is gone');
  await expect(log.waitFor(/never/)).rejects.toThrow('guest is gone');
  expect((await log.waitFor(/last/))[0]).toBe('last');
});

test('following yields every line in order and ends when the log is closed', async () => {
  const log = new LineLog();
  log.push(bytes('a\nb\n'));
  const seen: string[] = [];
  const following = (async () => {
    for await (const line of log.follow()) {
      seen.push(line);
    }
  })();
  log.push(bytes('c\nd'));
  log.close(new Error('over'));
  await following;
  expect(seen).toEqual(['a', 'b', 'c', 'd']);
});
