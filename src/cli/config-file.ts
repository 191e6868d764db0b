// SPDX-License-Identifier: Apache-2.0
//
// Reads the configuration file; a flag overrides what the file says.

import { type CompiledConfig, compileConfig } from '../model/config.js';
import { BasaltError } from '../model/errors.js';
import type { CliWorld } from './launch.js';

export async function readConfig(
  world: CliWorld,
  path: string | undefined,
  overrides: Overrides = {},
): Promise<CompiledConfig> {
  const file = path === undefined ? {} : await parseFile(world, path);
  return compileConfig(merge(file, overrides), path ?? 'config');
}

export interface Overrides {
  readonly store?: Record<string, unknown>;
  readonly api?: Record<string, unknown>;
  readonly placement?: Record<string, unknown>;
  readonly clusterKey?: Record<string, unknown>;
  readonly nodeKey?: Record<string, unknown>;
  readonly nodes?: readonly unknown[];
  readonly logLevel?: string;
}

async function parseFile(world: CliWorld, path: string): Promise<unknown> {
  let text: string;
  try {
    text = await world.readFile(path);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new BasaltError('INVALID_ARGUMENT', { field: '--config', problem: `cannot be read: ${detail}` }, { cause });
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause);
    throw new BasaltError('INVALID_ARGUMENT', { field: path, problem: `is not JSON: ${detail}` }, { cause });
  }
}

/** Sections are merged field by field; anything that is no object is left to the schema to refuse. */
function merge(file: unknown, overrides: Overrides): unknown {
  if (typeof file !== 'object' || file === null || Array.isArray(file)) return file;
  const merged: Record<string, unknown> = { ...file };
  for (const section of ['store', 'api', 'placement', 'clusterKey', 'nodeKey'] as const) {
    const given = overrides[section];
    if (given === undefined || Object.keys(given).length === 0) continue;
    const present = merged[section];
    merged[section] = typeof present === 'object' && present !== null ? { ...present, ...given } : given;
  }
  if (overrides.nodes !== undefined) merged['nodes'] = overrides.nodes;
  if (overrides.logLevel !== undefined) merged['logLevel'] = overrides.logLevel;
  return merged;
}
