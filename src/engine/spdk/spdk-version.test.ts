// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { capabilitiesOf } from '../attached/capabilities.js';
import { methodsNeeded, shortVersion, spdkProblem } from './spdk-version.js';

describe('what answers on an RPC socket', () => {
  it('is taken for an SPDK that can have the drives of a node, or told why not in one line', () => {
    const problem = (version: string, has: readonly string[] = methodsNeeded): string | null =>
      spdkProblem(capabilitiesOf(version, has));
    expect(problem('SPDK v26.05 git sha1 abc')).toBeNull();
    expect(problem('SPDK v24.05')).toBeNull();
    expect(problem('SPDK v26.09-pre git sha1 abc')).toBeNull();
    expect(problem('SPDK v24.01')).toBe('serves SPDK v24.01; SPDK v24.05 or later is needed');
    expect(problem('SPDK v19.10')).toContain('or later is needed');
    expect(problem('Basalt v0.1.0')).toBe('serves Basalt v0.1.0, which is no SPDK');
    expect(problem('SPDK v26.05', methodsNeeded.slice(0, -1))).toContain('without nvmf_subsystem_remove_host');
    expect(problem('SPDK v26.05', ['spdk_get_version'])).toContain('framework_start_init');
  });

  it('goes by a short name', () => {
    expect(shortVersion('SPDK v26.05 git sha1 4d0adbd8c')).toBe('SPDK v26.05');
  });
});
