// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { type Engine, EngineError, engineErrorCodes } from '../engine/engine.js';
import { openListener } from './listener.js';

function refusing(code: number): Engine {
  const rpc = async (method: string): Promise<never> => {
    throw new EngineError(code, method, 'refused');
  };
  return { rpc } as unknown as Engine;
}

describe('a listener', () => {
  it('says which address is taken when another process listens there', async () => {
    const opening = openListener(refusing(engineErrorCodes.busy), { traddr: '127.0.0.1', trsvcid: '4420' });
    await expect(opening).rejects.toMatchObject({
      code: 'BUSY',
      fields: { kind: 'address', name: '127.0.0.1:4420' },
    });
  });

  it('passes on what the engine refuses for any other reason', async () => {
    const opening = openListener(refusing(engineErrorCodes.permission), { traddr: '10.0.0.1', trsvcid: '0' });
    await expect(opening).rejects.toMatchObject({ code: engineErrorCodes.permission });
  });
});
