// SPDX-License-Identifier: Apache-2.0
//
// The vocabulary of docs/rpc.md as types: one entry per method, with its parameters and its result. Names and order of
// fields are those on the wire. The engine checks what arrives; these types keep callers from asking for nonsense.

import type {
  AnaState,
  AuthenticationPolicy,
  BdevDescription,
  BdevIostat,
  CryptoKeyDescription,
  DiscoveryAccess,
  Epoch,
  HostReservationParams,
  HostReservationResult,
  KeyNames,
  LegDescription,
  LegResync,
  LegScrub,
  LinkDescription,
  ListenAddress,
  LvolDescription,
  LvstoreDescription,
  NvmeControllerDescription,
  RaidDescription,
  ReactorDescription,
  ReactorMode,
  Referral,
  ReservationState,
  SubsystemController,
  SubsystemDescription,
  TlsRefusal,
  TransportDescription,
} from './descriptions.js';

type NoParams = Record<string, never>;

export interface MethodMap {
  rpc_get_methods: { params: NoParams; result: string[] };
  spdk_get_version: { params: NoParams; result: { version: string; fields: Record<string, string | number> } };
  framework_get_reactors: { params: NoParams; result: { reactors: ReactorDescription[] } };
  /** Without `lcore`: all of them. */
  basalt_reactor_set_mode: { params: { mode: ReactorMode; lcore?: number }; result: true };

  bdev_malloc_create: {
    params: { num_blocks: number; block_size: number; name?: string; uuid?: string };
    result: string;
  };
  bdev_malloc_delete: { params: { name: string }; result: true };
  bdev_null_create: {
    params: { name: string; num_blocks: number; block_size: number; uuid?: string };
    result: string;
  };
  bdev_null_delete: { params: { name: string }; result: true };
  bdev_aio_create: {
    params: {
      name: string;
      filename: string;
      block_size?: number;
      readonly?: boolean;
      create_bytes?: number;
      buffered?: boolean;
    };
    result: string;
  };
  bdev_aio_delete: { params: { name: string }; result: true };
  /** Keys are hexadecimal digits: 16 or 32 bytes each, two different ones. */
  accel_crypto_key_create: {
    params: { name: string; cipher: 'AES_XTS'; key: string; key2: string; tweak_mode?: 'SIMPLE_LBA' };
    result: true;
  };
  /** Crypto bdevs that were made with it go on. */
  accel_crypto_key_destroy: { params: { key_name: string }; result: true };
  accel_crypto_keys_get: { params: { key_name?: string }; result: CryptoKeyDescription[] };
  bdev_crypto_create: {
    params: { base_bdev_name: string; name: string; key_name: string; uuid?: string };
    result: string;
  };
  bdev_crypto_delete: { params: { name: string }; result: true };
  bdev_error_create: { params: { base_name: string }; result: string };
  bdev_error_delete: { params: { name: string }; result: true };
  bdev_error_inject_error: {
    params: {
      name: string;
      io_type: 'read' | 'write' | 'flush' | 'unmap' | 'all';
      error_type: 'failure' | 'pending' | 'corrupt_data';
      num?: number;
    };
    result: true;
  };
  /** read_only: nothing is written, and what load refuses is opened as far as it can be read for sure. */
  bdev_examine: { params: { name: string; read_only?: boolean }; result: true };

  bdev_lvol_create_lvstore: {
    params: {
      bdev_name: string;
      lvs_name: string;
      cluster_sz?: number;
      clear_method?: 'none' | 'unmap' | 'write_zeroes';
    };
    result: string;
  };
  bdev_lvol_delete_lvstore: { params: { uuid?: string; lvs_name?: string }; result: true };
  bdev_lvol_get_lvstores: { params: { uuid?: string; lvs_name?: string }; result: LvstoreDescription[] };
  bdev_lvol_create: {
    params: {
      lvol_name: string;
      size_in_mib: number;
      lvs_name?: string;
      uuid?: string;
      thin_provision?: boolean;
      lvol_uuid?: string;
      checksums?: boolean;
    };
    result: string;
  };
  bdev_lvol_delete: { params: { name: string; epoch?: Epoch }; result: true };
  bdev_lvol_get_lvols: {
    params: { lvs_name?: string; lvs_uuid?: string; sizes?: boolean; notes?: boolean };
    result: LvolDescription[];
  };
  bdev_lvol_snapshot: {
    params: { lvol_name: string; snapshot_name: string; snapshot_uuid?: string; epoch?: Epoch };
    result: string;
  };
  /**
   * Makes the range of the target read as that of the source; only blocks that differ are written. Nobody else writes
   * either meanwhile.
   */
  basalt_bdev_copy: {
    params: { source: string; target: string; offset_blocks: number; num_blocks: number; flush?: boolean };
    result: { written_blocks: number };
  };
  /** `snapshot_name` may be a writable lvol: the clone is a cut of it. */
  bdev_lvol_clone: {
    params: { snapshot_name: string; clone_name: string; clone_uuid?: string; epoch?: Epoch };
    result: string;
  };
  bdev_lvol_resize: { params: { name: string; size_in_mib: number; epoch?: Epoch }; result: true };
  bdev_lvol_rename: { params: { old_name: string; new_name: string; epoch?: Epoch }; result: true };
  bdev_lvol_set_read_only: { params: { name: string; epoch?: Epoch }; result: true };
  bdev_lvol_inflate: { params: { name: string; epoch?: Epoch }; result: true };
  bdev_lvol_decouple_parent: { params: { name: string; epoch?: Epoch }; result: true };
  /** Reads all that the lvol holds, or what it holds of a range. Answers when it is through. */
  basalt_lvol_scrub: {
    params: { name: string; bytes_per_s?: number; first_block?: number; num_blocks?: number };
    result: { checked_blocks: number; bad_blocks: number };
  };
  basalt_lvstore_fsck: {
    params: { bdev_name: string; dump?: boolean };
    result: {
      sound: boolean;
      name: string;
      uuid: string;
      generation: number;
      problems: { severity: 'error' | 'warning'; message: string }[];
      text: string;
    };
  };
  basalt_lvstore_set_thresholds: {
    params: { lvs_name?: string; uuid?: string; used_percent: number[] };
    result: true;
  };

  bdev_raid_create: {
    params: {
      name: string;
      raid_level: 'raid0' | 'raid1' | 'raid5' | 'raid6' | 'concat';
      base_bdevs: string[];
      /** Not of a concat; of a raid1 64, where nothing is said. */
      strip_size_kb?: number;
      uuid?: string;
      /** raid1, raid5, raid6: overwrite members that belong to a raid. */
      force?: boolean;
      /** That of the level: true of raid1, raid5 and raid6. */
      superblock?: boolean;
    };
    result: true;
  };
  /**
   * A device for the place of a raid1, raid5 or raid6 that it left, where it gets what it missed, or for the first one that has
   * none: it is rebuilt, which goes on after a restart.
   */
  bdev_raid_add_base_bdev: { params: { raid_bdev: string; base_bdev: string }; result: true };
  /** Makes a device equal to a member, which serves meanwhile, and gives it its place; `raid_member_exchanged` follows. */
  basalt_raid_replace_base_bdev: { params: { name: string; base_bdev: string; new_base_bdev: string }; result: true };
  /** A raid1, raid5 or raid6 grows; as large as its members have room for, unless it is said. */
  basalt_raid_resize: { params: { name: string; num_blocks?: number }; result: true };
  /** Read-only: what the member at that place holds, from copies of those at as many others as there are data members. */
  basalt_parity_member_create: { params: { name: string; base_bdevs: string[]; place: number }; result: true };
  basalt_parity_member_delete: { params: { name: string }; result: true };
  /**
   * Finds a raid1, raid5 or raid6 again on its members. `accept_missing`: also on so few that others may have gone on without
   * them, whose newer data is given up then.
   */
  basalt_raid_load: { params: { name: string; base_bdevs: string[]; accept_missing?: boolean }; result: true };
  /** Compares all strips of each stripe. Ends with `busy` when it is stopped before, or a member leaves. */
  basalt_raid_scrub: { params: { name: string; repair?: boolean; bytes_per_s?: number }; result: LegScrub };
  basalt_raid_scrub_stop: { params: { name: string }; result: true };
  /** Of rebuilds, and of the resync after an unclean end. */
  basalt_raid_set_resync: { params: { name: string; bytes_per_s?: number; paused?: boolean }; result: true };
  bdev_raid_delete: { params: { name: string }; result: true };
  bdev_raid_get_bdevs: {
    params: { category: 'all' | 'online' | 'configuring' | 'offline' };
    result: RaidDescription[];
  };

  bdev_nvme_attach_controller: {
    params: {
      name: string;
      trtype: 'TCP' | 'RDMA' | 'LOOPBACK';
      traddr: string;
      adrfam?: 'IPv4' | 'IPv6';
      trsvcid: string;
      subnqn: string;
      hostnqn?: string;
      hdgst?: boolean;
      ddgst?: boolean;
      multipath?: 'disable' | 'multipath';
      ctrlr_loss_timeout_sec?: number;
      reconnect_delay_sec?: number;
      fast_io_fail_timeout_sec?: number;
      hostid?: string;
      io_queue_count?: number;
      keep_alive_ms?: number;
      /** Ours. Sends changes again on another path while an old copy may still land on newer data. */
      resend_at_once?: boolean;
    } & KeyNames &
      AuthenticationPolicy;
    result: string[];
  };
  bdev_nvme_set_multipath_policy: {
    params: {
      name: string;
      policy: 'active_passive' | 'active_active';
      /** latency: ours. */
      selector?: 'round_robin' | 'queue_depth' | 'latency';
      rr_min_io?: number;
    };
    result: true;
  };
  bdev_nvme_detach_controller: { params: { name: string }; result: true };
  bdev_nvme_get_controllers: { params: { name?: string }; result: NvmeControllerDescription[] };
  bdev_get_bdevs: { params: { name?: string }; result: BdevDescription[] };
  bdev_get_iostat: {
    params: { name?: string };
    result: { tick_rate: number; ticks: number; bdevs: BdevIostat[] };
  };

  nvmf_create_transport: {
    params: {
      trtype: 'TCP' | 'RDMA';
      /** True to listen beyond loopback where nothing encrypts: RDMA, and TCP without `secure_channel`. @default false */
      trusted_network?: boolean;
      max_io_qpairs_per_ctrlr?: number;
      in_capsule_data_size?: number;
      max_queue_depth?: number;
    };
    result: true;
  };
  nvmf_get_transports: { params: { trtype?: 'TCP' | 'RDMA' }; result: TransportDescription[] };
  nvmf_create_subsystem: {
    params: {
      nqn: string;
      serial_number?: string;
      model_number?: string;
      allow_any_host?: boolean;
      min_cntlid?: number;
      max_cntlid?: number;
      ana_reporting?: boolean;
      max_namespaces?: number;
      internal?: boolean;
      /** Ours: while it is accessible, its controllers on other nodes are fenced. */
      one_active?: boolean;
      /** Ours: fused Compare and Write is offered, atomic among the hosts of this subsystem. @default true */
      compare_write?: boolean;
      /** Ours: nodes attach replicas of other subsystems by it, any number over one association. */
      node_link?: boolean;
    };
    result: true;
  };
  nvmf_delete_subsystem: { params: { nqn: string }; result: true };
  nvmf_subsystem_add_ns: {
    params: {
      nqn: string;
      namespace: {
        bdev_name: string;
        nsid?: number;
        nguid?: string;
        uuid?: string;
        anagrpid?: number;
        one_writer?: boolean;
        /** With one_writer: the gate is kept in memory, by this namespace alone, and obeys no epoch below. */
        gate_epoch?: Epoch;
        reservations?: boolean;
        /** Reservations of hosts are kept by whoever hears nvmf_reservation_change. */
        shared_reservations?: boolean;
        /** Of a command that waits for the keeper's word. @default 10_000 */
        reservation_timeout_ms?: number;
      };
    };
    result: number;
  };
  /** What is durable: in force when this is answered. Ends the command whose change it is. */
  basalt_ns_set_reservation: { params: { nqn: string; nsid: number; reservation: ReservationState }; result: true };
  /** The change was not made: its host may try again, here or on another path. */
  basalt_ns_refuse_reservation: {
    params: { nqn: string; nsid: number; change: string; retry: 'later' | 'elsewhere' };
    result: true;
  };
  basalt_ns_get_reservation: {
    params: { nqn: string; nsid: number };
    /** known: it was set; asked: the change that a command waits for. */
    result: Omit<ReservationState, 'notices'> & { known: boolean; asked: string | null };
  };
  /** A reservation command of this engine's own host, on whichever path is accessible. */
  basalt_nvme_reservation: { params: HostReservationParams; result: HostReservationResult };
  nvmf_subsystem_remove_ns: { params: { nqn: string; nsid: number }; result: true };
  nvmf_subsystem_add_listener: {
    /** secure_channel: TLS only; then other addresses than loopback ones are right, too. */
    params: { nqn: string; listen_address: ListenAddress; secure_channel?: boolean };
    result: { trtype: 'TCP'; traddr: string; trsvcid: string };
  };
  nvmf_subsystem_remove_listener: { params: { nqn: string; listen_address: ListenAddress }; result: true };
  nvmf_subsystem_listener_set_ana_state: {
    params: { nqn: string; listen_address: ListenAddress; ana_state: AnaState; anagrpid?: number };
    result: true;
  };
  nvmf_subsystem_add_host: { params: { nqn: string; host: string } & KeyNames; result: true };
  /** For the next authentications and connections; what is connected stays. Without psk, the one it has stays. */
  nvmf_subsystem_set_keys: { params: { nqn: string; host: string } & KeyNames; result: true };
  /** What hosts may authenticate with, in order of preference, from now on. discovery_access: ours. */
  nvmf_set_config: { params: AuthenticationPolicy & { discovery_access?: DiscoveryAccess }; result: true };
  /** Of other targets, which discovery names to the hosts that a subsystem lists, the discovery subsystem included. */
  nvmf_discovery_add_referral: { params: Referral; result: true };
  nvmf_discovery_remove_referral: { params: Referral; result: true };
  nvmf_discovery_get_referrals: { params: NoParams; result: Required<Referral>[] };
  /** The file must be accessible to its owner only. Its text goes nowhere. */
  keyring_file_add_key: { params: { name: string; path: string }; result: true };
  keyring_file_remove_key: { params: { name: string }; result: true };
  /** A secret that is in no file in clear. It goes nowhere, as that of a file. */
  basalt_keyring_add_key: { params: { name: string; secret: string }; result: true };
  basalt_keyring_remove_key: { params: { name: string }; result: true };
  /** Without a path: those that were in no file. */
  keyring_get_keys: { params: NoParams; result: { name: string; path: string }[] };
  nvmf_subsystem_remove_host: { params: { nqn: string; host: string }; result: true };
  nvmf_subsystem_allow_any_host: { params: { nqn: string; allow_any_host: boolean }; result: true };
  nvmf_get_subsystems: { params: { nqn?: string }; result: SubsystemDescription[] };
  nvmf_subsystem_get_controllers: { params: { nqn: string }; result: SubsystemController[] };

  basalt_member_attach: {
    params: {
      name: string;
      traddr: string;
      trsvcid: string;
      subnqn: string;
      /** The node's link: shared with other members there. Where the node has none, the member connects alone. */
      link_nqn?: string;
      hostnqn: string;
      epoch: Epoch;
      timeout_ms: number;
      /** How long an I/O command may take before the member has failed. @default 1000 */
      command_timeout_ms?: number;
    } & KeyNames &
      AuthenticationPolicy;
    /** Fenced: EngineError -116 with `data.epoch`, the higher one. */
    result: { incarnation: string; num_blocks: number; block_size: number; shared: boolean };
  };
  basalt_member_detach: { params: { name: string }; result: true };
  /**
   * What the replica of a member is to keep beside its gate, 1 to 944 bytes as hexadecimal digits: durable when it is answered,
   * under the member's epoch. -95: the replica's node is of a version that keeps none.
   */
  basalt_member_write_note: { params: { name: string; note: string }; result: true };
  /** Empty: there is none. */
  basalt_member_read_note: { params: { name: string }; result: { note: string } };
  basalt_link_get: { params: NoParams; result: LinkDescription[] };
  basalt_leg_create: {
    params: {
      name: string;
      epoch: Epoch;
      members: { name: string; in_sync: boolean; replica?: string; distance?: number }[];
      all_dirty: boolean;
      lease_ms: number;
      /** With the three of them the members keep superblocks and marks in a tail of 1 MiB behind so many blocks. */
      num_blocks?: number;
      identity?: string;
      /** NQNs of the leg's replicas: marks are kept for them while they are out. */
      replicas?: string[];
      /** Growing to so many blocks had begun: the tail may lie behind these already. */
      grown_num_blocks?: number;
      /** Both, with `num_blocks` and `identity`: no mirror, but so many data and parity members. */
      data_members?: number;
      parity_members?: number;
      /** With them: the identity of the leg that its members may be copies of. */
      origin?: string;
    };
    result: { num_blocks: number };
  };
  /** Only larger. `busy`, `noSpace`: not now, and nothing has changed. */
  basalt_leg_resize: { params: { name: string; num_blocks: number }; result: true };
  basalt_leg_get: { params: { name: string }; result: LegDescription };
  basalt_leg_remove_member: { params: { name: string; member: string }; result: true };
  basalt_leg_add_member: {
    /** `instead_of`: of a leg with parity, the member whose place it gets when that one is removed. */
    params: { name: string; member: string; replica?: string; distance?: number; instead_of?: string };
    result: true;
  };
  basalt_leg_commit_member: { params: { name: string; member: string }; result: true };
  basalt_leg_abandon_member: { params: { name: string; member: string }; result: true };
  basalt_leg_keep_marks: { params: { name: string; replicas: string[] }; result: true };
  /** Of a leg that is to be given away. `clean`: equal, and what was written before is stable on all members of the set. */
  basalt_leg_settle: { params: { name: string }; result: { clean: boolean; marked_regions: number } };
  basalt_leg_set_resync: { params: { name: string; bytes_per_s?: number; paused?: boolean }; result: true };
  basalt_leg_scrub_start: { params: { name: string; bytes_per_s?: number; repair?: boolean }; result: true };
  basalt_leg_scrub_stop: { params: { name: string }; result: true };
  basalt_leg_fence: { params: { name: string }; result: true };
  basalt_leg_delete: { params: { name: string }; result: true };

  basalt_slot_create: {
    params: { name: string; num_blocks: number; block_size: number; uuid: string };
    result: string;
  };
  basalt_slot_delete: { params: { name: string }; result: true };
  basalt_slot_set: { params: { name: string; bdev_name: string | null }; result: true };
  /** Only larger, and not larger than its backing. Connected hosts are told. */
  basalt_slot_resize: { params: { name: string; num_blocks: number }; result: true };
  /**
   * One instant of all legs below the slot: requests are held, those in flight end, every member cuts a snapshot. The
   * members are those in sync, all of them, else `busy`. After an error some of them may have theirs, or get it yet.
   */
  basalt_slot_snapshot: {
    params: {
      name: string;
      members: { name: string; snapshot_name: string }[];
      hold_ms: number;
      /**
       * Of several volumes: `slot_held` tells when requests are held, and they are until `basalt_slot_release` or the end of
       * `hold_ms`, in which case it has failed. What takes long is to be done before, by `basalt_slot_snapshot_prepare`.
       */
      group?: string;
    };
    /** How long requests were held. */
    result: { held_us: number };
  };
  /** Does of a snapshot what needs no requests to be held. */
  basalt_slot_snapshot_prepare: {
    params: { name: string; members: { name: string; snapshot_name: string }[] };
    result: true;
  };
  /** All of the group are held, and were at one instant. `notFound`: this one is not, or not any more. */
  basalt_slot_release: { params: { name: string; group: string }; result: true };
  basalt_slot_quiesce: { params: { name: string; timeout_ms: number }; result: true };
  basalt_slot_resume: { params: { name: string }; result: true };

  basalt_nbd_start: { params: { bdev_name: string; path: string; export_name?: string }; result: { uri: string } };
  basalt_nbd_stop: { params: { path: string }; result: true };
  basalt_peer_watch: {
    /** Without `hostnqn` as a host of no name. `psk`: of its TLS. */
    params: { name: string; traddr: string; trsvcid: string; keep_alive_ms: number; hostnqn?: string; psk?: string };
    result: string;
  };
  basalt_peer_unwatch: { params: { name: string }; result: true };
}

export type Method = keyof MethodMap;
export type Params<M extends Method> = MethodMap[M]['params'];
export type MethodResult<M extends Method> = MethodMap[M]['result'];

export type EngineEvent =
  | { method: 'leg_member_failed'; params: { leg: string; member: string; reason: string; sequence: number } }
  | { method: 'leg_member_copied'; params: { leg: string; member: string } & LegResync }
  | { method: 'leg_resync'; params: { leg: string; member: string } & LegResync }
  | {
      method: 'leg_repaired';
      params: { leg: string; member: string; offset_blocks: number; num_blocks: number };
    }
  | { method: 'leg_scrub'; params: { leg: string } & LegScrub }
  | { method: 'raid_member_failed'; params: { raid: string; member: string; reason: string } }
  | { method: 'raid_member_rebuilt'; params: { raid: string; member: string } }
  | { method: 'raid_member_exchanged'; params: { raid: string; member: string; instead_of: string } }
  | { method: 'raid_rebuild'; params: { raid: string; member: string; percent: number } }
  | { method: 'raid_rebuild_failed'; params: { raid: string; member: string; reason: string } }
  | {
      method: 'raid_repaired';
      params: { raid: string; member: string; offset_blocks: number; num_blocks: number };
    }
  | { method: 'raid_scrub'; params: { raid: string } & LegScrub }
  | { method: 'leg_joining_failed'; params: { leg: string; member: string; reason: string } }
  | { method: 'leg_fenced'; params: { leg: string; epoch: string } }
  | { method: 'leg_clean'; params: { leg: string } }
  | { method: 'slot_held'; params: { name: string; group: string } }
  | { method: 'peer_connected'; params: { name: string } }
  | { method: 'peer_lost'; params: { name: string; reason: string } }
  /** Its machine refuses, or no way leads there: once for a watch, and once for each time that it was connected. */
  | { method: 'peer_refused'; params: { name: string; reason: string } }
  /** It is there, and does not let this watcher in: once for a watch, and once for each peer_connected. */
  | { method: 'peer_denied'; params: { name: string; reason: string } }
  /** A host's command waits until this is durable, or refused. */
  | {
      method: 'nvmf_reservation_change';
      params: { nqn: string; nsid: number; host: string; next: ReservationState };
    }
  /** Once per address of a peer. */
  | { method: 'nvmf_tls_refused'; params: { traddr: string; reason: TlsRefusal } }
  | {
      method: 'lvstore_space';
      params: { lvs_name: string; free_clusters: number; total_data_clusters: number };
    }
  | {
      method: 'lvstore_threshold';
      params: {
        lvs_name: string;
        used_percent: number;
        passed: boolean;
        free_clusters: number;
        total_data_clusters: number;
      };
    }
  | { method: 'lvstore_full'; params: { lvs_name: string; refused_count: number } }
  | { method: 'lvstore_checksum_mismatch'; params: { lvs_name: string; block_count: number } };
