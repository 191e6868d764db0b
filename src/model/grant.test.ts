// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { grantInstance, isGrantInstance } from './grant.js';
import { codecs, formatVersion } from './objects.js';

const incarnation = '8f0d7b2d70868b0627b1';

describe('the instance of a granted epoch', () => {
  it('is one that a leadership object can hold, of one life of one process and one epoch', () => {
    const instance = grantInstance(incarnation, 7);
    expect(instance).toBe('8f0d7b2d-7086-8b06-27b1-000000000007');
    const leadership = {
      format: formatVersion,
      volumeId: '11111111-1111-4111-8111-111111111111',
      epoch: 7,
      controller: 'c2',
      instance,
      clean: false,
      leaseMs: 300,
      legs: [],
    };
    expect(() => codecs.leadership.decode(JSON.stringify(leadership), 'key')).not.toThrow();
    expect(grantInstance(incarnation, 8)).not.toBe(instance);
    expect(grantInstance(`${incarnation.slice(0, -1)}2`, 7)).not.toBe(instance);
  });

  it('is none where it cannot be told from others', () => {
    expect(grantInstance('fake engine', 7)).toBeNull();
    expect(grantInstance(incarnation, 2 ** 48)).toBeNull();
  });

  it('is known by its epoch', () => {
    expect(isGrantInstance(grantInstance(incarnation, 4_097), 4_097)).toBe(true);
    expect(isGrantInstance(grantInstance(incarnation, 4_097), 4_098)).toBe(false);
    expect(isGrantInstance(null, 0)).toBe(false);
  });
});
