// SPDX-License-Identifier: Apache-2.0
//
// Whether what answers on a socket is an SPDK that can drive a node's disks: looked at before anything is started.

import type { Capabilities } from '../attached/capabilities.js';

/** The oldest whose target authenticates hosts (DH-HMAC-CHAP). Tried with 26.05. */
export const spdkVersionMin = '24.05';

export const methodsNeeded = [
  'bdev_get_bdevs',
  'keyring_file_add_key',
  'keyring_file_remove_key',
  'nvmf_create_subsystem',
  'nvmf_create_transport',
  'nvmf_get_subsystems',
  'nvmf_get_transports',
  'nvmf_subsystem_add_host',
  'nvmf_subsystem_add_listener',
  'nvmf_subsystem_add_ns',
  'nvmf_subsystem_remove_host',
] as const;

/** What is wrong with it, in one line; null: it can. */
export function spdkProblem({ version, methods }: Pick<Capabilities, 'version' | 'methods'>): string | null {
  const found = /^SPDK v(\d+\.\d+)/.exec(version)?.[1];
  if (found === undefined) return `serves ${version}, which is no SPDK`;
  if (number(found) < number(spdkVersionMin)) return `serves ${version}; SPDK v${spdkVersionMin} or later is needed`;
  const lacks = methodsNeeded.filter((method) => !methods.has(method));
  if (lacks.length === 0) return null;
  return `serves ${version} without ${lacks.join(', ')}: is it waiting for framework_start_init, or built without its target?`;
}

/** "SPDK v26.05 git sha1 …" is "SPDK v26.05" to a reader. */
export function shortVersion(version: string): string {
  return /^SPDK v\S+/.exec(version)?.[0] ?? version;
}

function number(version: string): number {
  const [year = 0, month = 0] = version.split('.').map(Number);
  return year * 100 + month;
}
