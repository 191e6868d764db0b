// SPDX-License-Identifier: Apache-2.0
// Builds the guest image before the first suite, so that no test's deadline pays for a download.

import { ensureImage } from '../lab/image.js';

export async function setup(): Promise<void> {
  await ensureImage({ progress: (message) => process.stderr.write(`lab: ${message}\n`) });
}
