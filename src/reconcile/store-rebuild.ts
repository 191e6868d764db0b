// SPDX-License-Identifier: Apache-2.0
//
// From what all disks of a cluster say to a new store (decision 015). Pure: the same disks give the same store, but for the
// generation, which is above every one that a disk has seen.
//
// Invariants:  - disks of two clusters are never mixed
//              - a volume is in the new store only when all of its legs are known for sure, or its loss was accepted
//              - what was left out stays on the disks as it is: no object names it

import { BasaltError } from '../model/errors.js';
import { firstEpoch, generationMax, generationOf, isUndriven } from '../model/generation.js';
import { keys } from '../model/keys.js';
import { type ClusterObject, codecs, type Leadership, type VolumeObject } from '../model/objects.js';
import type { SetNote } from '../model/set-note.js';
import type { RebuildChoice, RebuildFindings, SurveyedDisk, VolumeVerdict } from '../model/survey.js';
import { foundSize, type LegVerdict, legVerdict, type SetsView } from './found-sets.js';
import { type KeptObjects, keptObjects } from './kept-objects.js';

export interface RebuildPlan extends RebuildFindings {
  /** Everything, the cluster's own object last. */
  readonly objects: readonly { readonly key: string; readonly text: string }[];
}

/** @throws INVALID_ARGUMENT when there is no cluster, more than one, or a choice names what there is not */
export function planStoreRebuild(disks: readonly SurveyedDisk[], choice: RebuildChoice): RebuildPlan {
  const cluster = onlyCluster(disks);
  const kept = keptObjects(disks);
  const found = kept.state.get('cluster', '');
  if (found === null) throw invalid('no disk has a copy of the configuration that counts; see what is wrong with them');
  const generation = nextGeneration(disks);
  const volumes = kept.state.all('volumes');
  const rule = { generation, choice: withParts(volumes, choice) };
  const plain = volumes
    .filter(({ parts }) => parts === undefined)
    .map((volume) => judge(viewOf(kept, disks, volume), rule));
  const whole = volumes.filter(({ parts }) => parts !== undefined).map((volume) => judgeByParts(volume, plain));
  const verdicts = [...plain.filter(({ volume }) => volume.partOf === undefined), ...whole].map(
    ({ verdict }) => verdict,
  );
  checkChoice(verdicts, choice);
  const isPresent = ({ is }: VolumeVerdict): boolean => is === 'whole' || is === 'accepted';
  const present = [...plain, ...whole].filter(
    ({ volume, verdict }) =>
      isLeftover(volume) ||
      (isPresent(verdict) &&
        (volume.partOf === undefined || whole.some((of) => of.volume.id === volume.partOf && isPresent(of.verdict)))),
  );
  const objects = present.flatMap(({ volume, leadership }) => [
    ...volumeObjects(kept, volume, leadership),
    ...(volume.fronts ?? []).flatMap((front) => frontObjects(kept, front, generation)),
  ]);
  return {
    cluster,
    generation,
    volumes: verdicts,
    missingDisks: missingDisks(kept, disks),
    gone: kept.gone.filter(({ key }) => key.startsWith(keys.volumes) || key.startsWith(keys.snapshots)),
    problems: problemsOf(disks),
    obstacles: verdicts.flatMap(obstacleOf),
    objects: [
      ...everybodysObjects(kept),
      ...objects,
      ...groups(kept, new Set(present.map(({ volume }) => volume.id))),
      { key: keys.cluster, text: codecs.cluster.encode({ ...found, generation } satisfies ClusterObject) },
    ],
  };
}

function onlyCluster(disks: readonly SurveyedDisk[]): string {
  const clusters = [
    ...new Set(disks.flatMap(({ cluster, copy }) => [cluster, ...(copy === null ? [] : [copy.cluster])])),
  ];
  const [cluster, ...others] = clusters;
  if (cluster === undefined) throw invalid('there is no disk');
  if (others.length === 0) return cluster;
  const of = clusters.map((id) => {
    const paths = disks.filter((disk) => disk.cluster === id || disk.copy?.cluster === id);
    return `${id} (${paths.map(({ node, path }) => `${node}:${path}`).join(', ')})`;
  });
  throw invalid(`the disks are of more than one cluster: ${of.join('; ')}`);
}

function nextGeneration(disks: readonly SurveyedDisk[]): number {
  const seen = disks.flatMap(({ copy, lvols }) => [
    copy?.generation ?? 0,
    ...lvols.flatMap(({ epoch, note }) => [
      generationOf(epoch ?? 0),
      note.is === 'note' ? generationOf(note.note.epoch) : 0,
    ]),
  ]);
  const next = Math.max(0, ...seen) + 1;
  if (next > generationMax) throw invalid(`the store was rebuilt ${generationMax} times: there is no later generation`);
  return next;
}

function viewOf(kept: KeptObjects, disks: readonly SurveyedDisk[], volume: VolumeObject): SetsView {
  const key = keys.leadership(volume.id);
  const leaderships = kept.all
    .filter((account) => account.key === key)
    .map(({ text, revision }) => ({ revision, value: codecs.leadership.decode(text, key) }))
    .map(({ revision, value }) => ({ revision, epoch: value.epoch, value }));
  const isDriven = leaderships.some(({ value }) => !isUndriven(value.epoch));
  const notes = disks.flatMap(({ lvols }) => lvols.flatMap(notesOf)).filter((note) => note.volumeId === volume.id);
  const placed = volume.legs.flatMap(({ replicas }) => replicas);
  const has = (disk: string, lvol: string): boolean =>
    disks.some((each) => each.id === disk && each.lvols.some(({ name, epoch }) => name === lvol && epoch !== null));
  const isSeen = (replica: string): boolean => {
    if (disks.some(({ id }) => has(id, replica))) return true;
    const entry = placed.find((each) => each.replica === replica);
    if (entry === undefined || !disks.some(({ id }) => id === entry.disk)) return false;
    // Not made yet: of a snapshot's copy that is there, or of nothing.
    return entry.source === undefined ? !isDriven && notes.length === 0 : has(entry.disk, entry.source);
  };
  return { volume, leaderships, notes, isSeen, needs: volume.erasure?.data ?? 1 };
}

function notesOf({ note, isSnapshot }: SurveyedDisk['lvols'][number]): SetNote[] {
  return note.is === 'note' && !isSnapshot ? [note.note] : [];
}

interface Judged {
  readonly volume: VolumeObject;
  /** Null: it is not in the new store. */
  readonly leadership: Leadership | null;
  readonly verdict: VolumeVerdict;
}

function judge(view: SetsView, { generation, choice }: { generation: number; choice: RebuildChoice }): Judged {
  const { suspended: _, ...volume } = view.volume;
  const legs = volume.legs.map((_leg, index) => legVerdict(view, index));
  const chosen = (names: ReadonlySet<string>): boolean => names.has(volume.name) || names.has(volume.id);
  const isWhole = legs.every(({ missing, doubt }) => missing.length === 0 && doubt === null);
  const isLost = legs.some(({ inSync }) => inSync === null);
  const is = chosen(choice.leaveOut)
    ? 'left out'
    : isLost
      ? 'lost'
      : isWhole
        ? 'whole'
        : chosen(choice.acceptLoss)
          ? 'accepted'
          : 'waits';
  const { id, name, sizeBytes } = volume;
  const verdict = { id, name, sizeBytes, is, problems: legs.flatMap((leg) => problemsOfLeg(view, leg)) } as const;
  const isKept = is === 'whole' || is === 'accepted' || isLeftover(volume);
  return { volume, leadership: isKept ? newLeadership(view, legs, generation) : null, verdict };
}

/** A part is deleted after its volume: it is there for as long as anything of it is on disks, whatever has gone already. */
function isLeftover({ partOf, phase }: VolumeObject): boolean {
  return partOf !== undefined && phase === 'deleting';
}

/** What is chosen for a volume with several active controllers (decision 020) is chosen for its parts. */
function withParts(volumes: readonly VolumeObject[], choice: RebuildChoice): RebuildChoice {
  const expand = (names: ReadonlySet<string>): ReadonlySet<string> =>
    new Set([
      ...names,
      ...volumes.flatMap(({ id, name, parts = [] }) => (names.has(name) || names.has(id) ? parts : [])),
    ]);
  return { acceptLoss: expand(choice.acceptLoss), leaveOut: expand(choice.leaveOut) };
}

/** It has no legs of its own: it is as its worst part. */
function judgeByParts(volume: VolumeObject, judged: readonly Judged[]): Judged {
  const { id, name, sizeBytes, parts = [] } = volume;
  const verdicts = parts.map((part) => judged.find((each) => each.volume.id === part)?.verdict);
  const order = ['left out', 'lost', 'waits', 'accepted', 'whole'] as const;
  const is = order.find((each) => verdicts.some((verdict) => (verdict?.is ?? 'lost') === each)) ?? 'lost';
  const problems = verdicts.flatMap((verdict, index) =>
    verdict === undefined ? [`part ${index} is gone`] : verdict.problems.map((problem) => `part ${index}: ${problem}`),
  );
  return { volume, leadership: null, verdict: { id, name, sizeBytes, is, problems } };
}

/** A front keeps nothing: who drives it next takes over what its parts export. */
function frontObjects({ state }: KeptObjects, front: string, generation: number): { key: string; text: string }[] {
  const last = state.get('leaderships', front);
  if (last === null) return [];
  const epoch = firstEpoch(generation) + (isUndriven(last.epoch) ? 0 : 1);
  const led = { ...last, epoch, controller: null, instance: null, clean: isUndriven(last.epoch) && last.clean };
  return [{ key: keys.leadership(front), text: codecs.leadership.encode(led) }];
}

function problemsOfLeg({ volume, needs }: SetsView, { leg, missing, doubt, inSync }: LegVerdict): string[] {
  const placed = volume.legs[leg]?.replicas ?? [];
  const waits = missing.map((replica) => {
    const at = placed.find((entry) => entry.replica === replica);
    const where = at === undefined ? 'on a disk that is not known' : `on disk ${at.disk} of ${at.node}`;
    return `leg ${leg} needs replica ${replica}, ${where}`;
  });
  const too = inSync === null ? [`leg ${leg} has fewer than ${needs} members that were seen of any set`] : [];
  return [...waits, ...(doubt === null ? [] : [`leg ${leg}: ${doubt}`]), ...too];
}

/** Everything else of it is as it was last known; what is not clean is found by marks and logs. */
function newLeadership(view: SetsView, legs: readonly LegVerdict[], generation: number): Leadership | null {
  const newest = [...view.leaderships].sort((a, b) => b.epoch - a.epoch || b.revision - a.revision)[0]?.value;
  if (newest === undefined) return null;
  const { size: _, ...rest } = newest;
  const isNew = isUndriven(newest.epoch) && view.notes.length === 0;
  const size = foundSize(view);
  return {
    ...rest,
    epoch: firstEpoch(generation) + (isNew ? 0 : 1),
    controller: null,
    instance: null,
    clean: isNew && newest.clean,
    legs: legs.map(({ inSync }) => ({ inSync: [...(inSync ?? [])] })),
    ...(size === undefined ? {} : { size }),
    rebuilt: legs.map(({ rank: { epoch, revision } }) => ({ epoch, revision })),
  };
}

function obstacleOf({ name, is, problems }: VolumeVerdict): string[] {
  if (is === 'waits') return [`volume ${name}: ${problems.join('; ')}`];
  if (is === 'lost') return [`volume ${name} cannot be begun: ${problems.join('; ')}`];
  return [];
}

function checkChoice(verdicts: readonly VolumeVerdict[], { acceptLoss, leaveOut }: RebuildChoice): void {
  for (const wanted of [...acceptLoss, ...leaveOut])
    if (!verdicts.some(({ name, id }) => name === wanted || id === wanted))
      throw invalid(`no disk knows of a volume ${wanted}`);
}

function everybodysObjects({ accounts }: KeptObjects): { key: string; text: string }[] {
  const ofVolumes = [keys.volumes, keys.leaderships, keys.reservations, keys.snapshots, keys.snapshotGroups];
  const skipped = [...ofVolumes, keys.volumeNames, keys.snapshotNames];
  return [...accounts.values()]
    .filter(({ key }) => key !== keys.cluster && !skipped.some((prefix) => key.startsWith(prefix)))
    .map(({ key, text }) => ({ key, text }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}

function volumeObjects(
  { state, accounts }: KeptObjects,
  volume: VolumeObject,
  leadership: Leadership | null,
): { key: string; text: string }[] {
  const as = (key: string): { key: string; text: string }[] => {
    const account = accounts.get(key);
    return account === undefined ? [] : [{ key, text: account.text }];
  };
  const snapshots = state.all('snapshots').filter(({ volumeId }) => volumeId === volume.id);
  return [
    { key: keys.volume(volume.id), text: codecs.volume.encode(volume) },
    ...(volume.partOf === undefined ? as(keys.volumeName(volume.name)) : []),
    ...(leadership === null ? [] : [{ key: keys.leadership(volume.id), text: codecs.leadership.encode(leadership) }]),
    ...as(keys.reservation(volume.id)),
    ...snapshots.flatMap(({ id, name }) => [...as(keys.snapshot(id)), ...as(keys.snapshotName(volume.id, name))]),
  ];
}

/** Those whose members are all there. */
function groups({ state }: KeptObjects, present: ReadonlySet<string>): { key: string; text: string }[] {
  return state
    .all('snapshotGroups')
    .filter(({ members }) => members.every(({ volumeId }) => present.has(volumeId)))
    .map((group) => ({ key: keys.snapshotGroup(group.name), text: codecs.snapshotGroup.encode(group) }));
}

function missingDisks({ state }: KeptObjects, disks: readonly SurveyedDisk[]): RebuildPlan['missingDisks'] {
  const removed = (id: string): boolean => state.get('cordons', `disk/${id}`)?.mode === 'removed';
  return state
    .all('disks')
    .filter(({ id }) => !disks.some((disk) => disk.id === id) && !removed(id))
    .map(({ id, node, path }) => ({ id, node, path }));
}

function problemsOf(disks: readonly SurveyedDisk[]): string[] {
  return disks.flatMap(({ node, path, problems, lvols }) => [
    ...problems.map((problem) => `${node}:${path}: ${problem}`),
    ...lvols.flatMap(({ name, epoch, note }) => [
      ...(epoch === null ? [`${node}:${path}: the gate of ${name} cannot be read`] : []),
      ...(note.is === 'refused' ? [`${node}:${path}: the note of ${name} does not count: ${note.problem}`] : []),
    ]),
  ]);
}

function invalid(problem: string): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field: 'disks', problem });
}
