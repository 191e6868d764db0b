// SPDX-License-Identifier: Apache-2.0

import { ClusterKeyFile } from '../agents/cluster-key-file.js';
import { NodeKeyFile } from '../agents/node-key-file.js';
import { systemRandom } from '../env/random.js';

export async function drawKey(
  path: string,
  how: 'create' | 'add',
  kind: 'cluster' | 'node',
): Promise<{ id: string } | null> {
  const file = kind === 'cluster' ? new ClusterKeyFile(path, systemRandom) : new NodeKeyFile(path, systemRandom);
  if (how === 'add') return { id: (await file.add()).id };
  return (await file.create()) ? { id: (await file.ring()).newest.id } : null;
}
