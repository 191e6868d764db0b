// SPDX-License-Identifier: Apache-2.0
//
// `basalt store survey` and `basalt store rebuild`: with no daemon running, from what is on the disks to a new store.

import { NodeKeyFile } from '../agents/node-key-file.js';
import type { StoreRebuildChoice, StoreRebuildReport, SurveyFile } from '../cli/launch.js';
import { systemRandom } from '../env/random.js';
import type { CompiledConfig } from '../model/config.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { Signer } from '../model/signer.js';
import { planStoreRebuild, type RebuildPlan } from '../reconcile/store-rebuild.js';
import { committedRevision, type Store, type Txn, txnOpsMax } from '../store/store.js';
import { daemonLog } from './daemon.js';
import { openStore } from './open-store.js';
import { type DiskToRead, surveyDisks } from './survey-disks.js';

const surveyFormat = 1;
/** Of the values in one request; a store takes half as much again. */
const bytesAtOnce = 1024 * 1024;
const changesAtOnce = Math.floor(txnOpsMax / 2);

export async function runStoreSurvey(config: CompiledConfig, disks: readonly DiskToRead[]): Promise<SurveyFile> {
  return { basaltSurvey: surveyFormat, disks: await surveyDisks(disks, await signerOf(config)) };
}

export async function runStoreRebuild(config: CompiledConfig, choice: StoreRebuildChoice): Promise<StoreRebuildReport> {
  for (const file of choice.surveys) {
    const given: unknown = file.basaltSurvey;
    if (given === surveyFormat) continue;
    throw new BasaltError('INVALID_ARGUMENT', { field: 'survey', problem: `is no survey of a known format: ${given}` });
  }
  const disks = choice.surveys.flatMap((file) => file.disks);
  const twice = disks.find((disk, index) => disks.findIndex((each) => each.id === disk.id) !== index);
  if (twice !== undefined)
    throw new BasaltError('INVALID_ARGUMENT', { field: 'survey', problem: `has disk ${twice.id} twice` });
  const plan = planStoreRebuild(disks, choice);
  if (choice.write && plan.obstacles.length === 0) await writeStore(config, plan);
  const { objects, ...shown } = plan;
  return { ...shown, objectCount: objects.length, written: choice.write && plan.obstacles.length === 0 };
}

async function signerOf(config: CompiledConfig): Promise<Signer> {
  const file = new NodeKeyFile(config.nodeKey.file, systemRandom);
  return new Signer(config.nodeKey.required ? await file.ring() : await file.ringIfAny());
}

async function writeStore(config: CompiledConfig, plan: RebuildPlan): Promise<void> {
  const store = await openStore(config, daemonLog(config, 'basalt-store-rebuild'));
  try {
    await writeInto(store, plan.objects);
  } finally {
    await store.close();
  }
}

/**
 * Everything, the cluster's own object last: a store without that one is none, and is filled from the beginning again.
 * @throws ALREADY_EXISTS when the store has a cluster, before anything is written
 */
export async function writeInto(store: Store, objects: RebuildPlan['objects']): Promise<void> {
  const { entries } = await store.list(keys.root);
  if (entries.some(({ key }) => key === keys.cluster))
    throw new BasaltError('ALREADY_EXISTS', { kind: 'cluster', name: 'in this store', field: 'store' });
  const noCluster = [{ key: keys.cluster, modRevision: 0 }];
  const commit = async (changes: Txn['changes']): Promise<void> => {
    const txn = { conditions: noCluster, changes };
    committedRevision(txn, await store.txn(txn));
  };
  // Of a try that was broken off.
  for (let at = 0; at < entries.length; at += changesAtOnce)
    await commit(entries.slice(at, at + changesAtOnce).map(({ key }) => ({ kind: 'delete', key })));
  let batch: { kind: 'put'; key: string; value: string }[] = [];
  let bytes = 0;
  for (const { key, text } of objects) {
    const size = Buffer.byteLength(text);
    if (batch.length >= changesAtOnce || (batch.length > 0 && bytes + size > bytesAtOnce)) {
      await commit(batch);
      batch = [];
      bytes = 0;
    }
    batch.push({ kind: 'put', key, value: text });
    bytes += size;
  }
  await commit(batch);
}
