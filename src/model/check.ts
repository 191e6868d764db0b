// SPDX-License-Identifier: Apache-2.0
//
// Turns values from outside into typed ones, or says which field is wrong and what would be right.

import type { Static, TSchema } from 'typebox';
// Not 'typebox/compile': that brings conversions and codecs along, a fifth of the time in which a process starts.
import { Compile, type Validator } from 'typebox/schema';
import { BasaltError } from './errors.js';

/** One complaint of the validator, as TypeBox and ajv both shape it. */
export interface SchemaComplaint {
  readonly keyword: string;
  readonly instancePath: string;
  readonly message?: string | undefined;
  readonly params: unknown;
}

export type Checker<T> = (value: unknown, path?: string) => T;

/** `check(value)` returns the value, or throws INVALID_ARGUMENT that names the field below `path`. */
export function checker<S extends TSchema>(schema: S): Checker<Static<S>> {
  let compiled: Validator | null = null;
  return (value, path = '') => {
    compiled ??= Compile(schema);
    if (compiled.Check(value)) return value as Static<S>;
    throw complaintError(compiled.Errors(value)[1] as SchemaComplaint[], path);
  };
}

/** The most telling complaint as an error of the one table. */
export function complaintError(complaints: readonly SchemaComplaint[], path: string): BasaltError {
  const order = ['additionalProperties', 'required'];
  const chosen =
    complaints.find((entry) => order.includes(entry.keyword)) ??
    complaints.find((entry) => entry.keyword !== 'boolean') ??
    complaints[0];
  if (chosen === undefined)
    return new BasaltError('INVALID_ARGUMENT', { field: path || 'value', problem: 'not valid' });
  const params = chosen.params as Record<string, unknown>;
  const at = fieldPath(path, chosen.instancePath);
  if (chosen.keyword === 'additionalProperties') {
    const name = first(params['additionalProperties'] ?? params['additionalProperty']);
    return new BasaltError('INVALID_ARGUMENT', { field: join(at, name), problem: 'is not known here' });
  }
  if (chosen.keyword === 'required') {
    const name = first(params['requiredProperties'] ?? params['missingProperty']);
    return new BasaltError('INVALID_ARGUMENT', { field: join(at, name), problem: 'is missing' });
  }
  const problem =
    chosen.keyword === 'const' || chosen.keyword === 'anyOf' ? choices(complaints, chosen) : chosen.message;
  return new BasaltError('INVALID_ARGUMENT', { field: at || 'value', problem: problem ?? 'not valid' });
}

function choices(complaints: readonly SchemaComplaint[], chosen: SchemaComplaint): string {
  const allowed = complaints
    .filter((entry) => entry.instancePath === chosen.instancePath && entry.keyword === 'const')
    .map((entry) => JSON.stringify((entry.params as Record<string, unknown>)['allowedValue'] ?? '?'))
    .filter((text) => text !== '"?"');
  return allowed.length > 0 ? `must be one of ${allowed.join(', ')}` : (chosen.message ?? 'not valid');
}

function first(value: unknown): string {
  return String(Array.isArray(value) ? value[0] : value);
}

function fieldPath(base: string, pointer: string): string {
  let at = base;
  for (const part of pointer.split('/').slice(1)) {
    const name = part.replaceAll('~1', '/').replaceAll('~0', '~');
    at = /^\d+$/.test(name) ? `${at}[${name}]` : join(at, name);
  }
  return at;
}

function join(base: string, name: string): string {
  return base === '' ? name : `${base}.${name}`;
}
