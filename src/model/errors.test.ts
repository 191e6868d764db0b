// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { BasaltError, errorTable, isBasaltError } from './errors.js';

describe('table of errors', () => {
  it('gives every row an HTTP error status, a failing exit code, a message and a hint', () => {
    for (const [code, row] of Object.entries(errorTable)) {
      expect(code).toMatch(/^[A-Z][A-Z0-9_]+$/);
      expect(row.httpStatus >= 400 && row.httpStatus < 600, code).toBe(true);
      expect(row.exitCode > 0 && row.exitCode < 126, code).toBe(true);
      expect(row.message.length > 0 && row.hint.length > 0, code).toBe(true);
    }
  });

  it('fills the message from the fields, keeps the cause and shows a missing field', () => {
    const cause = new Error('refused');
    const error = new BasaltError('INVALID_ARGUMENT', { field: 'volume.sizeBytes' }, { cause });
    expect(error.message).toBe('volume.sizeBytes: ?');
    expect(error.cause).toBe(cause);
    expect(isBasaltError(error, 'INVALID_ARGUMENT')).toBe(true);
    expect(isBasaltError(error, 'BUSY')).toBe(false);
    expect(error.row.exitCode).toBe(2);
  });
});
