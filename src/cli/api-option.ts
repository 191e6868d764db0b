// SPDX-License-Identifier: Apache-2.0

import { ApiClient } from '../client/api-client.js';
import { defaults } from '../model/config.js';
import { BasaltError } from '../model/errors.js';
import { readConfig } from './config-file.js';
import type { CliWorld } from './launch.js';
import type { CommonOptions } from './output.js';

/** `--api`, else BASALT_API, else what the configuration file says, else the default; with the token, where one is named. */
export async function apiClient(world: CliWorld, options: CommonOptions): Promise<ApiClient> {
  const config = options.config === undefined ? null : await readConfig(world, options.config);
  const named = options.api ?? nonEmpty(world.environment['BASALT_API']);
  return new ApiClient({
    endpoint: named ?? config?.api.listen ?? defaults.apiListen,
    token: await tokenOf(world, options.tokenFile, config?.api.tokenFile ?? undefined),
    ca: await authorityOf(world, options.apiCa ?? nonEmpty(world.environment['BASALT_API_CA'])),
  });
}

/** Never an argument, which everybody on the machine can read. @throws INVALID_ARGUMENT naming the file, never what is in it */
async function tokenOf(
  world: CliWorld,
  option: string | undefined,
  configured: string | undefined,
): Promise<string | null> {
  if (option !== undefined) return tokenIn(world, option, '--token-file');
  const token = nonEmpty(world.environment['BASALT_TOKEN']);
  if (token !== undefined) return token.trim();
  const file = nonEmpty(world.environment['BASALT_TOKEN_FILE']);
  if (file !== undefined) return tokenIn(world, file, 'BASALT_TOKEN_FILE');
  return configured === undefined ? null : tokenIn(world, configured, 'api.tokenFile');
}

async function tokenIn(world: CliWorld, path: string, field: string): Promise<string> {
  const text = await world.readPrivateFile(path).catch((cause: unknown) => {
    throw new BasaltError('INVALID_ARGUMENT', { field, problem: messageOf(cause) }, { cause });
  });
  return text.trim();
}

async function authorityOf(world: CliWorld, path: string | undefined): Promise<string | null> {
  if (path === undefined) return null;
  return world.readFile(path).catch((cause: unknown) => {
    const problem = `${path} cannot be read: ${messageOf(cause)}`;
    throw new BasaltError('INVALID_ARGUMENT', { field: '--api-ca', problem }, { cause });
  });
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}
