// SPDX-License-Identifier: Apache-2.0
//
// Where each object lives in the store, and the names that engines know them by.

const root = '/basalt/v1/';

export const keys = Object.freeze({
  root,
  cluster: `${root}cluster`,
  /** Names the cluster key of new volumes. */
  clusterKeys: `${root}keys/`,
  clusterKey: `${root}keys/current`,
  /** Changes with every placement, so that two of them never count the same free space. */
  placement: `${root}placement`,
  nodes: `${root}nodes/`,
  node: (name: string) => `${root}nodes/${name}`,
  nodeLinks: `${root}node-links/`,
  nodeLink: (name: string) => `${root}node-links/${name}`,
  /** Leased: present while that process keeps its lease alive. */
  lives: `${root}live/`,
  live: (name: string) => `${root}live/${name}`,
  /** Of the API, by name. */
  tokens: `${root}tokens/`,
  token: (name: string) => `${root}tokens/${name}`,
  /** Hosts that have keys, by NQN. */
  hosts: `${root}hosts/`,
  host: (nqn: string) => `${root}hosts/${nqn}`,
  /** Of hosts, by volume. */
  reservations: `${root}reservations/`,
  reservation: (volumeId: string) => `${root}reservations/${volumeId}`,
  disks: `${root}disks/`,
  disk: (id: string) => `${root}disks/${id}`,
  volumes: `${root}volumes/`,
  volume: (id: string) => `${root}volumes/${id}`,
  volumeNames: `${root}names/volumes/`,
  volumeName: (name: string) => `${root}names/volumes/${name}`,
  pools: `${root}pools/`,
  pool: (id: string) => `${root}pools/${id}`,
  poolNames: `${root}names/pools/`,
  poolName: (name: string) => `${root}names/pools/${name}`,
  pgMaps: `${root}pgmaps/`,
  pgMap: (poolId: string) => `${root}pgmaps/${poolId}`,
  tombstones: `${root}tombstones/`,
  tombstone: (replicaId: string) => `${root}tombstones/${replicaId}`,
  /** Of disks and nodes that shall get nothing new, or hold nothing. */
  cordons: `${root}cordons/`,
  cordon: (kind: 'disk' | 'node', name: string) => `${root}cordons/${kind}/${name}`,
  jobs: `${root}jobs/`,
  job: (id: string) => `${root}jobs/${id}`,
  /** What was answered to requests with an idempotency key; by the key's digest. */
  idempotencies: `${root}idempotency/`,
  idempotency: (digest: string) => `${root}idempotency/${digest}`,
  /** Whom the holder of an epoch shall hand the volume over to. */
  handOvers: `${root}handovers/`,
  handOver: (volumeId: string) => `${root}handovers/${volumeId}`,
  /** What is compared of a volume, and how far that is. */
  scrubs: `${root}scrubs/`,
  scrub: (volumeId: string) => `${root}scrubs/${volumeId}`,
  snapshots: `${root}snapshots/`,
  snapshot: (id: string) => `${root}snapshots/${id}`,
  snapshotNames: `${root}names/snapshots/`,
  snapshotName: (volumeId: string, name: string) => `${root}names/snapshots/${volumeId}/${name}`,
  /** By name. */
  snapshotGroups: `${root}snapshot-groups/`,
  snapshotGroup: (name: string) => `${root}snapshot-groups/${name}`,
  /** What the controllers of a group tell each other while requests are held. */
  snapshotHolds: `${root}snapshot-holds/`,
  snapshotHold: (groupId: string, volumeId: string) => `${root}snapshot-holds/${groupId}/${volumeId}`,
  leaderships: `${root}leadership/`,
  leadership: (volumeId: string) => `${root}leadership/${volumeId}`,
  observedReplicas: `${root}observed/replicas/`,
  observedReplica: (replicaId: string) => `${root}observed/replicas/${replicaId}`,
  observedVolumes: `${root}observed/volumes/`,
  observedVolume: (volumeId: string, node: string) => `${root}observed/volumes/${volumeId}/${node}`,
});

const authority = 'nqn.2026-01.io.basalt';

export const nqns = Object.freeze({
  discovery: 'nqn.2014-08.org.nvmexpress.discovery',
  replica: (replicaId: string) => `${authority}:replica:${replicaId}`,
  /** Of every disk node: by it controllers reach all replicas there over one association. */
  nodeLink: `${authority}:node-link`,
  /** A part of a volume with several active controllers, for one of that volume's fronts; and by what link. */
  partExport: (partId: string, frontId: string) => `${authority}:part:${partId}:${frontId}`,
  partLink: `${authority}:part-link`,
  /** A copy of a snapshot, for disk nodes that make another one of it. */
  snapshotCopy: (lvol: string) => `${authority}:snapshot-copy:${lvol}`,
  volume: (volumeId: string) => `${authority}:volume:${volumeId}`,
  /** A bdev of an SPDK that is a disk of this node, and one process of the node towards it. */
  spdkDisk: (node: string, bdev: string) => `${authority}:spdk-disk:${node}:${bdev}`,
  spdkHost: (node: string, process: string) => `${authority}:spdk-host:${node}:${process}`,
  /** What a controller calls itself towards replicas; with a node key, under which one. */
  controller: (name: string, nodeKeyId?: string) =>
    `${authority}:controller:${name}${nodeKeyId === undefined ? '' : `:${nodeKeyId}`}`,
});

/** NVMe serial numbers hold 20 characters; a volume shows the same one on every path. */
export function volumeSerial(uuid: string): string {
  return uuid.replaceAll('-', '').slice(0, 20).toUpperCase();
}

export function nguidOf(uuid: string): string {
  return uuid.replaceAll('-', '');
}

const cntlidMax = 0xffef;
const cntlidsPerController = 0x1000;
export const controllersPerVolumeMax = 15;

/** Disjoint ranges by position, so that no two controllers of a volume hand out the same id. */
export function cntlidRange(index: number): { min: number; max: number } {
  const min = 1 + index * cntlidsPerController;
  return { min, max: Math.min(min + cntlidsPerController - 1, cntlidMax) };
}
