// SPDX-License-Identifier: Apache-2.0
// What a guest may have beside the base system: kernel modules, and programs out of Debian packages, which are downloaded
// and unpacked into the image, never installed. A new kind of guest is a row here.

export interface Equipment {
  readonly modules?: readonly string[];
  /** Debian packages; the libraries that they depend on come along. */
  readonly packages?: readonly string[];
  /** Where the packages have them; their libraries are found by ldd. */
  readonly programs?: readonly string[];
  /** Copied whole. */
  readonly folders?: readonly string[];
  /** Path → what it points to. */
  readonly links?: Readonly<Record<string, string>>;
  /** Path → text. */
  readonly files?: Readonly<Record<string, string>>;
}

const postgresBin = '/usr/lib/postgresql/15/bin';

export const equipmentTable = {
  xfs: {
    modules: ['xfs'],
    packages: ['xfsprogs'],
    programs: ['/sbin/mkfs.xfs', '/sbin/xfs_repair', '/usr/sbin/xfs_db'],
  },
  btrfs: {
    modules: ['btrfs'],
    packages: ['btrfs-progs'],
    programs: ['/bin/btrfs', '/sbin/mkfs.btrfs'],
  },
  postgresql: {
    packages: ['postgresql-15', 'postgresql-client-15', 'tzdata'],
    programs: ['postgres', 'initdb', 'pg_ctl', 'psql', 'pgbench', 'pg_amcheck', 'pg_checksums'].map(
      (name) => `${postgresBin}/${name}`,
    ),
    folders: ['/usr/lib/postgresql/15/lib', '/usr/share/postgresql/15', '/usr/share/zoneinfo/Etc'],
  },
  sqlite: { packages: ['sqlite3'], programs: ['/usr/bin/sqlite3'] },
  rdma: {
    modules: ['rdma_rxe', 'ib_uverbs', 'rdma_ucm', 'rdma_cm', 'nvme_rdma', 'nvmet_rdma', 'dummy'],
    packages: ['ibverbs-providers', 'ibverbs-utils', 'rdmacm-utils', 'iproute2', 'socat'],
    programs: ['ibv_devinfo', 'ibv_rc_pingpong', 'rping', 'rdma', 'socat']
      .map((name) => `/usr/bin/${name}`)
      .concat('/bin/ip'),
    folders: ['/usr/lib/x86_64-linux-gnu/libibverbs', '/etc/libibverbs.d'],
  },
  // The kernel's layers that ours are measured beside.
  peers: {
    modules: ['dm_thin_pool', 'dm_zero', 'raid1', 'raid456'],
    packages: ['dmsetup', 'mdadm'],
    programs: ['/sbin/dmsetup', '/sbin/mdadm'],
  },
} satisfies Record<string, Equipment>;

export type EquipmentName = keyof typeof equipmentTable;

export function equipmentOf(name: EquipmentName): Equipment {
  return equipmentTable[name];
}

/**
 * Which packages of a closure are unpacked: those asked for, and libraries. The C and C++ libraries come from the machine,
 * with the rest of the base system; the others left out are large and not needed.
 */
export function isUnpacked(name: string, asked: readonly string[]): boolean {
  if (asked.includes(name)) return true;
  return name.startsWith('lib') && !/^lib(c6|gcc-s1|stdc\+\+6|llvm|z3|perl|python|.*-perl$|c-l10n)/.test(name);
}

/** Files of the packages' folders that no scenario needs. */
export function isCopied(path: string): boolean {
  return !/\/(bitcode|llvmjit[^/]*)$/.test(path);
}
