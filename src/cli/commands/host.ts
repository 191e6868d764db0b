// SPDX-License-Identifier: Apache-2.0
//
// `basalt host`: hosts that prove who they are. Only which kinds of keys there are is ever shown.

import type { Command } from 'commander';
import type { HostKeysRequest, HostView } from '../../model/api.js';
import { BasaltError } from '../../model/errors.js';
import { apiClient } from '../api-option.js';
import { addHostKeyOptions, type HostKeyOptions, readHostKeys } from '../host-keys.js';
import type { CliWorld } from '../launch.js';
import { type CommonOptions, print, table } from '../output.js';

interface KeyOptions extends CommonOptions, HostKeyOptions {
  /** Commander's form of `--no-dhchap` and the like. */
  readonly dhchap?: boolean;
  readonly dhchapCtrlr?: boolean;
  readonly tls?: boolean;
}

export function addHostCommands(parent: Command, world: CliWorld): void {
  const host = parent.command('host').description('hosts that authenticate, or come by TLS');
  addHostKeyOptions(host.command('create <nqn>'))
    .description('give a host keys; every volume that it is attached to asks it for them')
    .action(async (nqn: string, _options, command: Command) => {
      const options: KeyOptions = command.optsWithGlobals();
      const keys = await readHostKeys(world, options);
      const view = await (await apiClient(world, options)).createHost({ nqn, ...keys });
      print(world, options, view, hostText(view));
    });
  addHostKeyOptions(host.command('set-keys <nqn>'))
    .description('change the keys of a host for its next connections; what is connected stays')
    .option('--no-dhchap', 'it need not authenticate any more')
    .option('--no-dhchap-ctrlr', 'controllers do not prove themselves to it any more')
    .option('--no-tls', 'it comes without TLS; its connections by TLS end')
    .action(async (nqn: string, _options, command: Command) => {
      const options: KeyOptions = command.optsWithGlobals();
      const view = await (await apiClient(world, options)).setHostKeys(nqn, await changes(world, options));
      print(world, options, view, hostText(view));
    });
  host
    .command('list')
    .description('list hosts that have keys or are attached to volumes')
    .action(async (_options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const views = await (await apiClient(world, options)).hosts();
      print(world, options, views, hostTable(views));
    });
  host
    .command('show <nqn>')
    .description('show one host')
    .action(async (nqn: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      const view = await (await apiClient(world, options)).host(nqn);
      print(world, options, view, hostText(view));
    });
  host
    .command('delete <nqn>')
    .description('forget the keys of a host that is attached to no volume')
    .action(async (nqn: string, _options, command: Command) => {
      const options: CommonOptions = command.optsWithGlobals();
      await (await apiClient(world, options)).deleteHost(nqn);
      print(world, options, { deleted: nqn }, `deleted ${nqn}`);
    });
}

async function changes(world: CliWorld, options: KeyOptions): Promise<HostKeysRequest> {
  const request: HostKeysRequest = await readHostKeys(world, options);
  const clash = (flag: string): BasaltError =>
    new BasaltError('INVALID_ARGUMENT', { field: flag, problem: 'is given together with a key of that kind' });
  if (options.dhchap === false) {
    if (request.dhchapKey !== undefined || request.dhchapCtrlrKey !== undefined) throw clash('--no-dhchap');
    request.dhchapKey = null;
    request.dhchapCtrlrKey = null;
  }
  if (options.dhchapCtrlr === false) {
    if (typeof request.dhchapCtrlrKey === 'string') throw clash('--no-dhchap-ctrlr');
    request.dhchapCtrlrKey = null;
  }
  if (options.tls === false) {
    if (request.tlsPsk !== undefined) throw clash('--no-tls');
    request.tlsPsk = null;
  }
  if (Object.keys(request).length > 0) return request;
  throw new BasaltError('INVALID_ARGUMENT', {
    field: '--dhchap-key-file',
    problem: 'is missing; name a key, or one to take away',
  });
}

function proofs(view: HostView): string {
  const kinds = [
    view.dhchapKey ? (view.dhchapCtrlrKey ? 'DH-HMAC-CHAP, both ways' : 'DH-HMAC-CHAP') : null,
    view.tlsPsk ? 'TLS' : null,
  ].filter((kind) => kind !== null);
  return kinds.join(', ') || 'its name alone';
}

function hostText(view: HostView): string {
  return [
    `host ${view.nqn}`,
    `  proves itself by  ${proofs(view)}`,
    `  attached to       ${view.volumes.join(', ') || '-'}`,
  ].join('\n');
}

function hostTable(views: readonly HostView[]): string {
  if (views.length === 0) return 'no hosts';
  const rows = views.map((view) => [view.nqn, proofs(view), view.volumes.join(', ') || '-']);
  return table([['HOST', 'PROVES ITSELF BY', 'VOLUMES'], ...rows]);
}
