// SPDX-License-Identifier: Apache-2.0
//
// Keys of hosts on the command line: always as the names of files, so that no key is in an argument, which everybody on
// the machine can read. What is printed names files too.

import type { Command } from 'commander';
import type { HostKeysRequest, HostView, VolumeView } from '../model/api.js';
import { BasaltError } from '../model/errors.js';
import { checkHostKey, type HostKeyKind, hostKeyKinds } from '../model/hosts.js';
import type { CliWorld } from './launch.js';

export interface HostKeyOptions {
  readonly dhchapKeyFile?: string;
  readonly dhchapCtrlrKeyFile?: string;
  readonly tlsPskFile?: string;
}

const options: Record<HostKeyKind, { readonly field: keyof HostKeyOptions; readonly flag: string }> = {
  dhchapKey: { field: 'dhchapKeyFile', flag: '--dhchap-key-file' },
  dhchapCtrlrKey: { field: 'dhchapCtrlrKeyFile', flag: '--dhchap-ctrlr-key-file' },
  tlsPsk: { field: 'tlsPskFile', flag: '--tls-psk-file' },
};

export function addHostKeyOptions(command: Command): Command {
  return command
    .option('--dhchap-key-file <path>', 'what the host authenticates with (nvme gen-dhchap-key)')
    .option('--dhchap-ctrlr-key-file <path>', 'what controllers prove themselves to the host with')
    .option('--tls-psk-file <path>', 'the key of its TLS (nvme gen-tls-key); it comes by TLS only');
}

/** What the files hold. @throws INVALID_ARGUMENT naming the option, never what is in a file */
export async function readHostKeys(
  world: CliWorld,
  given: HostKeyOptions,
): Promise<{ [K in keyof HostKeysRequest]?: string }> {
  const keys: { [K in keyof HostKeysRequest]?: string } = {};
  for (const kind of hostKeyKinds) {
    const { field, flag } = options[kind];
    const path = given[field];
    if (path === undefined) continue;
    const text = await world.readFile(path).catch((cause: unknown) => {
      const problem = `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`;
      throw new BasaltError('INVALID_ARGUMENT', { field: flag, problem }, { cause });
    });
    keys[kind] = checkHostKey(kind, text, flag);
  }
  return keys;
}

/** What the host runs to connect, a line for each path; `given` names files whose place the user knows. */
export function connectLines(volume: VolumeView, host: HostView, given: HostKeyOptions): string[] {
  const lines = volume.paths.flatMap((path) => {
    const address = host.tlsPsk ? path.tlsAddress : path.address;
    if (address === null) return [];
    const { traddr, trsvcid } = address;
    const plain = `nvme connect -t tcp -a ${traddr} -s ${trsvcid} -n ${volume.nqn} -q ${host.nqn}`;
    return [`${plain}${secretFlags(host, given)}    # ${path.state}`];
  });
  return host.tlsPsk ? [insertLine(volume, host, given), ...lines] : lines;
}

function secretFlags(host: HostView, given: HostKeyOptions): string {
  const one = (flag: string, kind: HostKeyKind): string => (host[kind] ? ` ${flag} "$(cat ${file(kind, given)})"` : '');
  const secrets = one('--dhchap-secret', 'dhchapKey') + one('--dhchap-ctrl-secret', 'dhchapCtrlrKey');
  return secrets + (host.tlsPsk ? ' --tls' : '');
}

function insertLine(volume: VolumeView, host: HostView, given: HostKeyOptions): string {
  const key = `--keydata "$(cat ${file('tlsPsk', given)})"`;
  const names = `--hostnqn ${host.nqn} --subsysnqn ${volume.nqn}`;
  return `nvme check-tls-key --insert --identity 1 ${names} ${key}    # once; the host runs tlshd`;
}

const unknownFiles: Record<HostKeyKind, string> = {
  dhchapKey: 'DHCHAP-KEY-FILE',
  dhchapCtrlrKey: 'DHCHAP-CTRLR-KEY-FILE',
  tlsPsk: 'TLS-PSK-FILE',
};

function file(kind: HostKeyKind, given: HostKeyOptions): string {
  const path = given[options[kind].field];
  if (path === undefined) return unknownFiles[kind];
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}
