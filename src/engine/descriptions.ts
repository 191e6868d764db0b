// SPDX-License-Identifier: Apache-2.0
//
// What the engine's methods take and show, as types (docs/rpc.md): bdevs, lvols, subsystems, legs, reservations. Names and
// order of fields are those on the wire.

/** Sent as a decimal string when it is a bigint; engines answer with a decimal string. */
export type Epoch = bigint | number | string;

export interface ListenAddress {
  trtype: 'TCP' | 'RDMA';
  adrfam?: 'IPv4' | 'IPv6';
  traddr: string;
  /** "0" takes a free port. */
  trsvcid: string;
}

export type AnaState = 'optimized' | 'non_optimized' | 'inaccessible' | 'change';
export type BdevIoType = 'read' | 'write' | 'flush' | 'unmap' | 'write_zeroes';
export type MemberState = 'in_sync' | 'joining' | 'failed' | 'copied';
export type LegState = 'active' | 'waiting' | 'fenced';

export interface BdevDescription {
  name: string;
  /** Other names that it goes by: its UUID. */
  aliases: string[];
  product_name: string;
  uuid: string;
  block_size: number;
  num_blocks: number;
  claimed: boolean;
  zoned: false;
  supported_io_types: Record<BdevIoType, boolean>;
}

export interface LvstoreDescription {
  uuid: string;
  name: string;
  base_bdev: string;
  total_data_clusters: number;
  free_clusters: number;
  block_size: number;
  cluster_size: number;
  /** Set aside for checksums. */
  checksum_clusters?: number;
  /** Blocks that were read, since the lvstore was loaded, and were not what had been written. */
  checksum_mismatches?: number;
  /** Records of the checksums' log that could not be read when it was loaded: what they said may read as damaged. */
  checksum_lost_records?: number;
  read_only?: boolean;
}

export interface LvolDescription {
  alias: string;
  uuid: string;
  name: string;
  is_thin_provisioned: boolean;
  is_snapshot: boolean;
  /** It reads something from a layer below. */
  is_clone: boolean;
  is_read_only: boolean;
  /** What it reads is verified; absent: the engine cannot. */
  checksums?: boolean;
  /** The nearest lvol below, by name; deleted ones do not show. */
  base_snapshot: string | null;
  clones: string[];
  lvs: { name: string; uuid: string };
  num_blocks: number;
  num_allocated_clusters: number;
  /** Of its own clusters. */
  allocated_bytes: number;
  /** With `sizes`: of its own clusters, what deleting it alone frees, and what others still read. */
  exclusive_bytes?: number;
  shared_bytes?: number;
  /** The highest epoch that this lvol's gate accepted; "0" when none did. */
  epoch: string;
  /** With `notes`: what basalt_member_write_note left, as hexadecimal digits. */
  note?: string;
}

export interface RaidDescription {
  name: string;
  uuid: string;
  strip_size_kb: number;
  state: 'online' | 'offline';
  raid_level: 'raid0' | 'raid1' | 'raid5' | 'raid6' | 'concat';
  num_base_bdevs: number;
  /** raid1, raid5, raid6: "" where a member is missing. */
  base_bdevs_list: string[];
  /** From here on: raid1, raid5 and raid6 only. */
  num_base_bdevs_operational?: number;
  members?: {
    name: string;
    state: 'missing' | 'in_sync' | 'rebuilding' | 'failed';
    percent?: number;
    /** The last one, behind those of the places: it is being made equal to that one, and then has its place. */
    instead_of?: string;
  }[];
  /** How much of the parity is known to be right; 100 unless it ended uncleanly or was just created. */
  resync_percent?: number;
  /** The last one, or the present one. */
  scrub?: LegScrub;
}

export interface ControllerPath {
  trtype: 'TCP' | 'RDMA' | 'LOOPBACK';
  traddr: string;
  trsvcid: string;
  state: string;
  ana_state: string;
  cntlid: number;
  /** Commands that were sent there, of all namespaces. */
  io_count: number;
}

export interface MultipathPolicyDescription {
  name: string;
  policy: 'active_passive' | 'active_active';
  selector?: 'round_robin' | 'queue_depth' | 'latency';
  rr_min_io?: number;
}

/** One association with a node, for all members there. */
export interface LinkDescription {
  address: string;
  hostnqn: string;
  state: 'connecting' | 'live';
  connections: number;
  members: number;
}
export interface NvmeControllerDescription {
  name: string;
  subnqn: string;
  hostnqn: string;
  ctrlrs: ControllerPath[];
  bdevs: MultipathPolicyDescription[];
}

export interface SubsystemNamespace {
  nsid: number;
  bdev_name: string;
  nguid: string;
  uuid: string;
  anagrpid: number;
  one_writer: boolean;
}

/** Names of keys in the keyring: what a host authenticates with, what a controller does, and the key of TLS. */
export interface KeyNames {
  dhchap_key?: string;
  dhchap_ctrlr_key?: string;
  /** The host comes by TLS, with this key, and not otherwise. */
  psk?: string;
}

/** Why a connection to a TLS port did not get in. */
export type TlsRefusal = 'plaintext' | 'key' | 'handshake' | 'timeout';

export interface TransportDescription {
  trtype: 'TCP' | 'RDMA';
  connections: number;
  half_open: number;
  /** Of RDMA. */
  rdma?: {
    /** Connections, by a status. */
    rejected: number;
    /** Connections that ended by a failed request or a malformed capsule. */
    broken: number;
    in_place_bytes: number;
    copied_bytes: number;
    /** Writes that are to come again, because receives and buffers were short. */
    refused_writes: number;
    /** What this side lacked when it rejected a connection for that; "": nothing. */
    last_lack: string;
  };
  /** Of TCP. */
  tls?: {
    /** Handshakes that ended well. */
    established: number;
    refused: Record<TlsRefusal, number>;
    /** At most 256; with the first reason of each. */
    refused_peers: { traddr: string; reason: TlsRefusal; count: number }[];
  };
}

export type DhchapDigest = 'sha256' | 'sha384' | 'sha512';
export type DhchapGroup = 'null' | 'ffdhe2048' | 'ffdhe3072' | 'ffdhe4096' | 'ffdhe6144' | 'ffdhe8192';

export interface AuthenticationPolicy {
  dhchap_digests?: DhchapDigest[];
  dhchap_dhgroups?: DhchapGroup[];
}

/** Whom discovery tells what: each host what it may use; that, but who has a key proves it first; nothing to anybody. */
export type DiscoveryAccess = 'open' | 'authenticated' | 'off';

/** The discovery service of another target. */
export interface Referral {
  address: Required<Pick<ListenAddress, 'trtype' | 'traddr' | 'trsvcid'>> & Pick<ListenAddress, 'adrfam'>;
  secure_channel?: boolean;
}

export interface SubsystemDescription {
  nqn: string;
  subtype: 'Discovery' | 'NVMe';
  listen_addresses: (ListenAddress & { ana_state: AnaState; secure_channel?: true })[];
  allow_any_host: boolean;
  /** The names of keys, where the host has to authenticate. */
  hosts: ({ nqn: string } & KeyNames)[];
  serial_number: string;
  model_number: string;
  min_cntlid: number;
  max_cntlid: number;
  namespaces: SubsystemNamespace[];
}

export interface SubsystemController {
  cntlid: number;
  hostnqn: string;
  hostid: string;
  num_io_qpairs: number;
}

export interface BdevIostat {
  name: string;
  bytes_read: number;
  num_read_ops: number;
  bytes_written: number;
  num_write_ops: number;
  bytes_unmapped: number;
  num_unmap_ops: number;
  num_write_zeroes_ops: number;
  num_flush_ops: number;
}

export type ReactorMode = 'adaptive' | 'busy' | 'interrupt';

export interface ReactorDescription {
  lcore: number;
  busy: number;
  idle: number;
  sleeps: number;
  poller: string;
  mode: ReactorMode;
}

export interface LegDescription {
  epoch: string;
  state: LegState;
  members: ({
    name: string;
    state: MemberState;
    synced_blocks: number;
    repaired_blocks: number;
    /** With parity: which strips it has. */
    place?: number;
  } & LegResync)[];
  dirty_regions: number;
  region_count: number;
  /** Write-intent marks that are set; 0 of 0 for a leg without tails. */
  marked_regions: number;
  mark_region_count: number;
  hedged_reads: number;
  scrub: LegScrub;
}

export interface LegScrub {
  state: 'idle' | 'running' | 'finished' | 'stopped';
  percent: number;
  compared_blocks: number;
  different_blocks: number;
  unreadable_blocks: number;
  repaired_blocks: number;
}

/** What brings a joining member up to date: only what it missed, or everything. */
export interface LegResync {
  resync: 'none' | 'delta' | 'full';
  copied_blocks: number;
  to_copy_blocks: number;
}

/** Never what the key is made of. */
export interface CryptoKeyDescription {
  name: string;
  cipher: 'AES_XTS';
  key_bits: number;
  tweak_mode: 'SIMPLE_LBA';
}

export interface ReservationNotice {
  version: number;
  kind: number;
  hosts: string[];
}

/** Reservations of hosts on a namespace, by host identifier; rtype is NVMe's, 0 for none. */
export interface ReservationState {
  version: number;
  change: string | null;
  generation: number;
  rtype: number;
  holder: string | null;
  registrants: { host: string; key: string }[];
  notices: ReservationNotice[];
}

export type HostReservationAction =
  | 'register'
  | 'unregister'
  | 'replace'
  | 'acquire'
  | 'preempt'
  | 'preempt_and_abort'
  | 'release'
  | 'clear'
  | 'report';

export interface HostReservationParams {
  /** Of the bdev. */
  name: string;
  action: HostReservationAction;
  /** The present key. */
  key?: Epoch;
  new_key?: Epoch;
  preempt_key?: Epoch;
  rtype?: number;
  ignore_key?: boolean;
  timeout_ms?: number;
}

export interface HostReservationResult {
  /** NVMe status field without its phase tag; 0: done. */
  status: number;
  text: string;
  report?: {
    generation: number;
    rtype: number;
    persistent: boolean;
    registrants: { host: string; key: string; holds: boolean }[];
  };
}
