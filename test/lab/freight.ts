// SPDX-License-Identifier: Apache-2.0
// Programs that were built here, for a guest: a tar file with them and their libraries, plugged in as a disk and unpacked by
// the guest. The image, which is cached, holds only what changes seldom.

import { mkdtemp, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { mustRun } from './command.js';
import { parseLdd } from './image.js';
import { ImageRoot } from './image-root.js';

/** Makes the file at `path`. `unpackFreight()` puts each program into the guest's /usr/bin. */
export async function packFreight(path: string, programs: readonly string[]): Promise<void> {
  const work = await mkdtemp(join(dirname(path), 'freight-'));
  try {
    const root = new ImageRoot(work);
    for (const program of programs) {
      await root.file(program, join('usr/bin', basename(program)));
      for (const library of parseLdd((await mustRun('ldd', [program])).toString(), program))
        await root.file(library, library);
    }
    await mustRun('tar', ['--create', '--format=ustar', '--file', path, '--directory', work, '.']);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Shell text: `disk` is the freight in the guest. */
export function unpackFreight(disk: string): string {
  return `
modprobe virtio_blk
until_ok 10 test -b ${disk} || fail "no ${disk}"
tar -xf ${disk} -C / || fail "unpacking ${disk}"
`;
}
