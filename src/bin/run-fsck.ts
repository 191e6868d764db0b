// SPDX-License-Identifier: Apache-2.0

import type { FsckReport } from '../cli/launch.js';
import { isEngineError } from '../engine/engine.js';
import { BasaltError } from '../model/errors.js';
import { createEngine } from './create-engine.js';

export async function runFsck(path: string, options: { dump: boolean; buffered: boolean }): Promise<FsckReport> {
  const engine = await createEngine('native');
  try {
    const { dump, buffered } = options;
    await engine.rpc('bdev_aio_create', { name: 'disk', filename: path, block_size: 4096, readonly: true, buffered });
    return await engine.rpc('basalt_lvstore_fsck', { bdev_name: 'disk', dump });
  } catch (error) {
    if (isEngineError(error)) throw new BasaltError('INVALID_ARGUMENT', { field: 'path', problem: error.message });
    throw error;
  } finally {
    await engine.close();
  }
}
