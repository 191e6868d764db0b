// SPDX-License-Identifier: Apache-2.0
//
// What random runs are meant to reach, counted: a kind of event that never happens in many runs is not tested by them.

export const rareEventTexts = {
  clone_read: 'a clone that was made while things went wrong was read, and compared with its snapshot',
  clone_written: 'a volume that was made of a snapshot was written, and read again',
  cluster_key_changed: 'the cluster key was changed while encrypted volumes were in use',
  controller_granted: 'a controller drew the next epoch for its successor',
  controller_handed_over: 'a controller gave its volume up in good order',
  controller_taken_over: 'a controller took a volume from one that had not let go',
  disk_drained: 'a disk was drained while volumes were in use',
  disk_lost: 'a disk was lost for good, and what it held was made again elsewhere',
  disk_node_added: 'a disk node was added to a cluster in use',
  drain_ended_early: 'a drain was called off before it had ended',
  drain_given_room: 'a drain waited for room until cordons were lifted',
  drain_refused: 'a drain that could not end was refused',
  intruder_refused: 'a replica refused a controller of an old epoch',
  fault_agents_link_slow: 'bytes between nodes with agents took longer than usual',
  fault_agents_packet_lost: 'a packet between nodes with agents was lost',
  fault_while_rebuilding: 'something else failed while what a lost disk held was made again',
  leg_on_one_member: 'a leg went on with a single member',
  lost_disk_removed: 'a disk that was lost for good was taken out of the cluster',
  member_let_go: 'the store let a member of a leg go',
  member_taken_back: 'the store took a member back',
  member_copied_by_marks: 'a member that came back was given what it missed',
  member_copied_in_full: 'a member was given everything',
  move_called_off: 'a move of a replica by hand was called off',
  move_refused: 'a move of a replica that could not be was refused',
  node_drained: 'a node was drained while volumes were in use',
  pool_change_called_off: 'a change of the pool of a volume in use was called off',
  pool_changed: 'a volume in use was given to another pool',
  pool_deleted: 'a pool was deleted while volumes were in use',
  pool_made: 'a pool was made while volumes were in use',
  replica_moved: 'a replica was given to another disk',
  replica_moved_by_hand: 'a replica was moved by hand while volumes were in use',
  scrub_called_off: 'a scrub of a volume in use was called off',
  scrub_mended: 'a scrub mended what had been damaged on a disk',
  scrub_taken_on: 'a scrub was gone on with by another node than the one that had begun it',
  snapshot_cloned: 'a volume was made of a snapshot',
  snapshot_copied: 'a copy of a snapshot was made out of another one',
  snapshot_deleted: 'a snapshot was deleted',
  snapshot_made: 'a snapshot was made while things went wrong',
  snapshot_tried_again: 'a try to make a snapshot failed',
  store_answer_lost: 'a change was made in the store, and its answer did not arrive',
  store_change_late: 'a change was made in the store after its client had given up',
  store_conflict: 'a transaction found that something had changed',
  store_lease_lost: 'a daemon lost its lease',
  store_refused: 'a client found the store down',
  volume_deleted: 'a volume was deleted while others were in use',
  volume_made: 'a volume was made while others were in use',
  volume_scrubbed: 'a scrub of a volume in use came to its end',
  watch_resynced: 'a watch fell behind a compaction and began again',
} as const;

export type RareEventName = keyof typeof rareEventTexts;

export interface RareEvent {
  readonly name: string;
  readonly text: string;
  readonly count: number;
}

export class RareEvents {
  readonly #counts = new Map<RareEventName, number>();

  reach(name: RareEventName): void {
    this.#counts.set(name, this.count(name) + 1);
  }

  count(name: RareEventName): number {
    return this.#counts.get(name) ?? 0;
  }

  /** Also those that did not happen. */
  get all(): RareEvent[] {
    const names = Object.keys(rareEventTexts) as RareEventName[];
    return names.map((name) => ({ name, text: rareEventTexts[name], count: this.count(name) }));
  }
}
