// SPDX-License-Identifier: Apache-2.0
// Command: `tsx test/lab/prepare.ts` builds the guest image; `--missing` prints the packages the lab still needs, one line,
// empty when none.

import { ensureImage } from './image.js';
import { missingPackages, readDistribution } from './packages.js';

if (process.argv.includes('--missing')) {
  process.stdout.write(`${(await missingPackages(await readDistribution())).join(' ')}\n`);
} else {
  const image = await ensureImage({ progress: (message) => process.stderr.write(`lab: ${message}\n`) });
  process.stdout.write(`${image.initrdPath}\n`);
}
