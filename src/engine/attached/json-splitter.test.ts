// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { JsonSplitter } from './json-splitter.js';

describe('a JSON splitter', () => {
  it('finds the same values however the stream is cut', () => {
    const values = [{ a: '}\\"{', b: [1, { c: '[' }] }, [], { 'd"': 'ü\u0000', e: { f: {} } }];
    const stream = ` ${JSON.stringify(values[0])}\n${JSON.stringify(values[1])}${JSON.stringify(values[2], null, 2)} `;
    for (let step = 1; step <= stream.length; step++) {
      const splitter = new JsonSplitter();
      const found: unknown[] = [];
      for (let at = 0; at < stream.length; at += step) {
        found.push(...splitter.push(stream.slice(at, at + step)).map((text) => JSON.parse(text)));
      }
      expect(found, `step ${step}`).toEqual(values);
    }
  });

  it('refuses what is no object, and one that never ends', () => {
    for (const text of ['hello', '"{}"', '}', '1{}'])
      expect(() => new JsonSplitter().push(text), text).toThrow('not a');
    const splitter = new JsonSplitter(16);
    expect(splitter.push('{"a":"bcdef"}')).toEqual(['{"a":"bcdef"}']);
    expect(() => splitter.push('{"a":"bcdefghijkl')).toThrow('more than 16');
  });
});
