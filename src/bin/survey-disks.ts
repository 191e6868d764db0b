// SPDX-License-Identifier: Apache-2.0
//
// Reads what the disks of a machine say of the cluster that they are of, with an engine of its own: no daemon has them open,
// and nothing is written. What is not signed by a node of the cluster is left out here, and named.

import { readCopy } from '../agents/configuration-keeper.js';
import { reason } from '../agents/context.js';
import { clusterOf } from '../agents/disks.js';
import { type Engine, isEngineError } from '../engine/engine.js';
import type { CompiledDisk } from '../model/config.js';
import { configurationLvol, parseCopyText } from '../model/configuration-copy.js';
import { BasaltError } from '../model/errors.js';
import { decodeSetNote } from '../model/set-note.js';
import type { Signer } from '../model/signer.js';
import type { SurveyedDisk, SurveyedLvol } from '../model/survey.js';
import { createEngine } from './create-engine.js';

export type DiskToRead = Pick<CompiledDisk, 'path' | 'buffered'> & { readonly node: string };

/** @throws DISK_REFUSED when one is in use, or is no disk of Basalt */
export async function surveyDisks(disks: readonly DiskToRead[], signer: Signer): Promise<SurveyedDisk[]> {
  const engine = await createEngine('native');
  try {
    const found: SurveyedDisk[] = [];
    for (const [index, disk] of disks.entries()) found.push(await survey(engine, disk, { index, signer }));
    return found;
  } finally {
    await engine.close();
  }
}

async function survey(
  engine: Engine,
  disk: DiskToRead,
  { index, signer }: { index: number; signer: Signer },
): Promise<SurveyedDisk> {
  const { path, node, buffered } = disk;
  const refused = (problem: string, cause?: unknown): BasaltError =>
    new BasaltError('DISK_REFUSED', { field: `disks[${index}].path`, path, problem }, { cause });
  const name = `disk-${index}`;
  try {
    await engine.rpc('bdev_aio_create', { name, filename: path, block_size: 4096, readonly: true, buffered });
    await engine.rpc('bdev_examine', { name, read_only: true });
  } catch (error) {
    if (isEngineError(error)) throw refused(error.message, error);
    throw error;
  }
  const lvstore = (await engine.rpc('bdev_lvol_get_lvstores', {})).find((each) => each.base_bdev === name);
  const cluster = lvstore === undefined ? null : clusterOf(lvstore.name);
  if (lvstore === undefined || cluster === null) throw refused('it is no disk of Basalt');
  const lvols = await engine.rpc('bdev_lvol_get_lvols', { lvs_uuid: lvstore.uuid, notes: true });
  const problems: string[] = [];
  const copy = lvols.some((lvol) => lvol.name === configurationLvol)
    ? await copyOn(engine, `${lvstore.name}/${configurationLvol}`, { signer, problems })
    : null;
  if (copy === null) problems.push('it has no copy of the configuration that counts');
  const replicas = lvols.filter((lvol) => lvol.name !== configurationLvol);
  return { node, path, id: lvstore.uuid, cluster, copy, problems, lvols: replicas.map((lvol) => ofLvol(lvol, signer)) };
}

async function copyOn(
  engine: Engine,
  bdev: string,
  { signer, problems }: { signer: Signer; problems: string[] },
): Promise<SurveyedDisk['copy']> {
  try {
    const found = await readCopy(engine, bdev, signer);
    problems.push(...found.problems.map((problem) => `a place of its copy of the configuration: ${problem}`));
    return found.text === null ? null : parseCopyText(found.text);
  } catch (error) {
    problems.push(`its copy of the configuration cannot be read: ${reason(error)}`);
    return null;
  }
}

function ofLvol(
  lvol: { name: string; is_snapshot: boolean; epoch: string; note?: string },
  signer: Signer,
): SurveyedLvol {
  const epoch = Number(lvol.epoch);
  return {
    name: lvol.name,
    isSnapshot: lvol.is_snapshot,
    epoch: Number.isSafeInteger(epoch) ? epoch : null,
    note: decodeSetNote(lvol.note ?? '', signer),
  };
}
