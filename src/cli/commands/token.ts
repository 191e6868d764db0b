// SPDX-License-Identifier: Apache-2.0
//
// `basalt token`: who may ask the API for what. A token is shown once, when it is made.

import type { Command } from 'commander';
import type { TokenCreated, TokenCreateRequest, TokenView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { type ApiRole, apiRoles } from '../../model/tokens.js';
import { apiClient } from '../api-option.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';
import { parseSeconds } from '../sizes.js';

interface CreateOptions extends CommonOptions {
  readonly role?: string;
  readonly expires?: string;
  readonly file?: string;
}

export function addTokenCommands(parent: Command, world: CliWorld): void {
  const token = parent.command('token').description('who may ask the API for what');
  token
    .command('create <name>')
    .description('make a token; the first must be of an admin: from then on every request needs one')
    .option('--role <role>', `${apiRoles.join(', ')}: each may do what those before it may`)
    .option('--expires <time>', 'when it ends by itself, such as 90d or 12h (default: never)')
    .option('--file <path>', 'write it there (mode 0600) instead of printing it')
    .action(async (name: string, _options, command: Command) => {
      const options: CreateOptions = command.optsWithGlobals();
      const request: TokenCreateRequest = { name, role: roleOf(options.role) };
      if (options.expires !== undefined) request.expiresInS = parseSeconds(options.expires, '--expires');
      await create(world, options, request);
    });
  token
    .command('list')
    .description('list the tokens by name and role')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const views = await (await apiClient(world, options)).tokens();
      print(world, options, views, tokenTable(views));
    });
  token
    .command('revoke <name>')
    .description('have no API server take a token any more')
    .action(async (name: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      await (await apiClient(world, options)).revokeToken(name);
      print(world, options, { revoked: name }, `revoked ${name}`);
    });
}

async function create(world: CliWorld, options: CreateOptions, request: TokenCreateRequest): Promise<void> {
  const client = await apiClient(world, options);
  const { file } = options;
  if (file === undefined) {
    const created = await client.createToken(request);
    print(world, options, created, created.token);
    return;
  }
  // The file first: a token that nobody has may be the one that everything needs from now on.
  let view: Omit<TokenCreated, 'token'> | null = null;
  const made = await world.fillPrivateFile(file, async () => {
    const { token, ...rest } = await client.createToken(request);
    view = rest;
    return `${token}\n`;
  });
  if (!made) throw new BasaltError('ALREADY_EXISTS', { kind: 'file', name: file, field: '--file' });
  print(world, options, { ...(view ?? {}), file }, `wrote the token ${request.name} (${request.role}) to ${file}`);
}

function roleOf(text: string | undefined): ApiRole {
  const role = apiRoles.find((known) => known === text);
  if (role !== undefined) return role;
  const problem = `must be one of ${apiRoles.join(', ')}`;
  throw new BasaltError('INVALID_ARGUMENT', { field: '--role', problem });
}

function tokenTable(views: readonly TokenView[]): string {
  if (views.length === 0) return 'no tokens: whoever reaches the API on loopback may do everything';
  const date = (ms: number): string => new Date(ms).toISOString().slice(0, 16).replace('T', ' ');
  const rows = views.map((view) => [
    view.name,
    view.role,
    date(view.createdAtMs),
    view.expiresAtMs === null ? 'never' : `${date(view.expiresAtMs)}${view.expired ? ' (expired)' : ''}`,
  ]);
  return table([['TOKEN', 'ROLE', 'CREATED', 'EXPIRES'], ...rows]);
}
