// SPDX-License-Identifier: Apache-2.0
// A disk that carries engined into a guest: the program without its debugging symbols, and the libraries that it is linked
// with. Those that it loads by itself (RDMA's) are the guest's.

import { copyFile, mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { mustRun } from '../lab/command.js';
import { parseLdd } from '../lab/image.js';
import { enginedPath } from './engined.js';

const diskMib = 192;

/** @param folder where the disk and what goes onto it are put @returns the disk's path */
export async function makeEnginedDisk(folder: string): Promise<string> {
  const content = join(folder, 'content');
  await mkdir(join(content, 'lib'), { recursive: true });
  await mustRun('strip', ['--strip-debug', '-o', join(content, 'engined'), enginedPath]);
  const libraries = parseLdd((await mustRun('ldd', [enginedPath])).toString(), enginedPath);
  for (const library of libraries) await copyFile(library, join(content, 'lib', basename(library)));
  const disk = join(folder, 'engined.img');
  await mustRun('/usr/sbin/mke2fs', ['-q', '-F', '-t', 'ext4', '-d', content, disk, `${diskMib}M`]);
  return disk;
}

/**
 * Shell functions: `start_engined NAME PORT` starts one that is reached through PORT of the guest, and `kill_engined NAME`
 * ends it as a crash would.
 */
export const enginedFunctions = `
modprobe virtio_blk
until_ok 20 test -b /dev/vda || fail "no disk with engined"
mkdir -p /engine
mount -t ext4 -o ro /dev/vda /engine || fail "mounting the disk with engined"
forwards() { netstat -ltn | grep -q ":$port "; }
start_engined() {
  LD_LIBRARY_PATH=/engine/lib /engine/engined --rpc unix:/run/$1.sock --reactors 1 &
  echo $! >/run/$1.pid
  until_ok 30 test -S /run/$1.sock || fail "engined $1 does not start"
  socat TCP-LISTEN:$2,fork,reuseaddr UNIX-CONNECT:/run/$1.sock &
  port=$2
  until_ok 20 forwards || fail "nobody forwards to engined $1"
}
kill_engined() { kill -9 "$(cat /run/$1.pid)"; }
engined_lives() { kill -0 "$(cat /run/$1.pid)" 2>/dev/null || fail "engined $1 is gone"; }
`;
