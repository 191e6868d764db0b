// SPDX-License-Identifier: Apache-2.0

import { loadAddon } from './addon.js';

/**
 * From now on nothing writes a core dump of this process, and nobody but root may attach to it or read its memory: for
 * programs that hold keys, of volumes, of hosts, or tokens. Daemons of Basalt do so at their start. There is no way back.
 * @throws {Error} when the addon is missing
 */
export function refuseCoreDumps(): void {
  loadAddon().refuseCoreDumps();
}
