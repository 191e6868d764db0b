// SPDX-License-Identifier: Apache-2.0
// Writes native/sources.gypi from the files on disk (`--check` only compares, exit code 1 when they differ).

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { scan_native, sources_gypi, write_if_changed } from './native-units.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const path = join(root, 'native', 'sources.gypi');
const text = sources_gypi(scan_native(join(root, 'native')));

if (process.argv.includes('--check')) {
  if (!existsSync(path) || readFileSync(path, 'utf8') !== text) {
    console.error('native/sources.gypi does not match the files in native/: run `npm run generate` and commit it');
    process.exit(1);
  }
} else if (write_if_changed(path, text)) {
  console.log('wrote native/sources.gypi');
}
