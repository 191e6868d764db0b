// SPDX-License-Identifier: Apache-2.0
//
// What the parts of the engine contract (contract.ts) share.

import { expect } from 'vitest';
import { type EngineError, type EngineErrorName, engineErrorCodes, isEngineError } from './engine.js';

export async function refusal(promise: Promise<unknown>): Promise<EngineError> {
  const error: unknown = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!isEngineError(error)) throw new Error(`expected an EngineError, got ${String(error)}`);
  return error;
}

export async function expectRefusal(promise: Promise<unknown>, name: EngineErrorName, about: string): Promise<void> {
  const error = await refusal(promise);
  expect(error.code, error.message).toBe(engineErrorCodes[name]);
  expect(error.message).toContain(about);
}

export function pattern(bytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, index) => (index * 31 + seed) % 251);
}
