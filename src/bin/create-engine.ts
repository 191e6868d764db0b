// SPDX-License-Identifier: Apache-2.0

import type { Engine } from '../engine/engine.js';

export async function createEngine(kind: 'native' | 'fake'): Promise<Engine> {
  switch (kind) {
    case 'native':
      return (await import('../engine/native/native-engine.js')).createNativeEngine();
    case 'fake':
      throw new Error('the fake engine lives in one process: use it from tests');
  }
}
