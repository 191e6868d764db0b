// SPDX-License-Identifier: Apache-2.0
//
// The table of errors: one row per stable code, with what each interface shows for it.
//
// Invariants:  - a code, once released, keeps its meaning; rows are added, never reused
//              - {name} in a message is filled from the error's `fields`; a missing field shows as "?"
//              - exit codes: 1 internal, 2 bad input, 3 not found, 4 exists or busy, 5 conflict,
//                6 unreachable or late, 7 outcome unknown, 8 refused

export interface ErrorRow {
  /** Message template; `{field}` is replaced. */
  readonly message: string;
  readonly httpStatus: number;
  readonly exitCode: number;
  /** What the operator can do about it. */
  readonly hint: string;
}

function row(message: string, httpStatus: number, exitCode: number, hint: string): ErrorRow {
  return Object.freeze({ message, httpStatus, exitCode, hint });
}

export const errorTable = Object.freeze({
  // General
  INTERNAL: row('internal error: {detail}', 500, 1, 'report it, with the log around it'),
  INVALID_ARGUMENT: row('{field}: {problem}', 400, 2, 'correct the named field'),
  NOT_FOUND: row('{kind} {name} does not exist', 404, 3, 'list what exists'),
  ALREADY_EXISTS: row('{kind} {name} already exists', 409, 4, 'choose another name'),
  BUSY: row('{kind} {name} is in use: {detail}', 409, 4, 'end its use first'),
  CANCELLED: row('{operation} was cancelled', 499, 6, 'start it again if it is still wanted'),
  DEADLINE_EXCEEDED: row(
    '{operation} did not finish within {timeoutMs} ms',
    504,
    6,
    'look at the load and the network, then retry',
  ),
  CLOSED: row('{what} is closed', 409, 4, 'open it again'),
  UNAUTHENTICATED: row(
    'the API asks for a token: {problem}',
    401,
    8,
    'name the file of one with --token-file, or set BASALT_TOKEN; an admin makes them with `basalt token create`',
  ),
  TOO_MANY_ATTEMPTS: row(
    'too many wrong tokens came from {address}; ask again in {retryAfterS} s',
    429,
    8,
    'find out who shows wrong tokens there; a token that was right from there before still goes',
  ),
  FORBIDDEN: row(
    'token {name} has the role {role}; {operation} needs {needed}',
    403,
    8,
    'use a token with that role; an admin makes them with `basalt token create`',
  ),

  // Store
  STORE_UNREACHABLE: row(
    'store at {endpoint} cannot be reached: {detail}',
    503,
    6,
    'nothing was changed; check that the store runs, then retry',
  ),
  STORE_CONFLICT: row('{key} changed meanwhile', 409, 5, 'another writer won; read again, then decide'),
  STORE_UNKNOWN_OUTCOME: row(
    '{operation} on the store at {endpoint} may or may not have happened: {detail}',
    503,
    7,
    'read the keys before trying again',
  ),
  STORE_COMPACTED: row(
    'revision {revision} is no longer in the store (compacted up to {compactRevision})',
    410,
    5,
    'read the present state instead',
  ),
  STORE_FUTURE_REVISION: row(
    'revision {revision} is not in the store yet',
    400,
    2,
    'the store may have been restored from a backup',
  ),
  STORE_TOO_LARGE: row('{what} is larger than the store takes: {detail}', 413, 2, 'split the request'),
  STORE_LEASE_LOST: row('lease {leaseId} ran out or was revoked', 410, 5, 'whatever it guarded must be taken anew'),
  STORE_NO_SPACE: row('store at {endpoint} is full: {detail}', 507, 6, 'compact the store or give it more space'),
  STORE_CLOSED: row('store client is closed', 409, 4, 'open it again'),
  STORE_REJECTED: row(
    'store at {endpoint} refused {operation}: {detail}',
    502,
    1,
    'report it; the store is of another version or damaged',
  ),
  STORE_DENIED: row(
    'store at {endpoint} does not allow {operation}: {detail}',
    502,
    8,
    'check store.username, the password file and the certificate, and what the store allows that user',
  ),
  STORE_DIRECTORY_LOCKED: row(
    'store directory {directory} is used by another process',
    409,
    4,
    'stop that process, or choose another directory',
  ),
  STORE_FORMAT_UNKNOWN: row(
    'store directory {directory} has a format this version does not know: {detail}',
    409,
    8,
    'use the version that wrote it; it was left untouched',
  ),
  STORE_DAMAGED: row(
    'store directory {directory} is damaged: {detail}',
    500,
    8,
    'restore a backup, or rebuild the store from the disks',
  ),
  STORE_LISTEN_FAILED: row('store cannot listen on {address}: {detail}', 500, 4, 'choose a free port'),
  STORE_ADDRESS_REFUSED: row(
    'store may listen on a loopback address only, not on {host}',
    400,
    8,
    'use 127.0.0.1 or ::1',
  ),

  // Objects, placement, leadership
  FORMAT_UNKNOWN: row(
    '{key} has a format this version does not know: {format}',
    409,
    8,
    'use the version that wrote it; it was left untouched',
  ),
  PLACEMENT_IMPOSSIBLE: row(
    '{field}: cannot place the volume: {problem}',
    422,
    8,
    'make the change that the message names',
  ),
  POOL_UNSUPPORTED: row('{field}: {problem}', 422, 8, 'ask for a redundancy that the engine has'),
  POOL_CHANGED: row('the disks of pool {name} changed while it was planned', 409, 5, 'ask again'),
  PLANNER_FAILED: row('placement could not be computed: {detail}', 500, 1, 'report it, with the log around it'),
  CLUSTER_MISMATCH: row(
    '{field}: {path} belongs to cluster {found}, not to {expected}',
    409,
    8,
    'use a disk of this cluster or an empty one',
  ),
  DISK_REFUSED: row(
    '{field}: {path} cannot be used as a disk: {problem}',
    409,
    8,
    'correct the disk or its configuration',
  ),
  VOLUME_LED: row(
    'volume {name} is driven by {controller} (epoch {epoch})',
    409,
    4,
    'close it there, or ask for a takeover',
  ),
  VOLUME_RESERVED: row(
    'volume {name} is reserved by a host',
    409,
    4,
    'programs have no host identifier: release the reservation at the host, or preempt it from another one',
  ),
  VOLUME_FENCED: row(
    'volume {name} was taken over by another controller (epoch {epoch})',
    409,
    5,
    'open it again if this process should drive it',
  ),
  STORE_OUTDATED: row(
    'volume {name} is not driven under this store: {detail}',
    409,
    8,
    'the store was rebuilt from the disks since: stop this one for good, or rebuild the newer one again (docs/operations.md)',
  ),
  VOLUME_UNAVAILABLE: row(
    'volume {name} cannot be served now: {detail}',
    503,
    6,
    'bring back the nodes that hold its replicas',
  ),
  CLUSTER_KEY_FILE: row(
    'cluster key file {path}: {problem}',
    409,
    8,
    'correct the file, or make one with `basalt key create`',
  ),
  CLUSTER_KEY_MISSING: row(
    '{what} needs cluster key {keyId}; held here: {held}',
    409,
    8,
    'bring the key file that holds it to this machine',
  ),
  NODE_KEY_FILE: row(
    'node key file {path}: {problem}',
    409,
    8,
    'correct the file, or bring the one of the cluster to this machine',
  ),
  VOLUME_KEY_DAMAGED: row(
    'the data key of volume {name} does not open under cluster key {keyId}',
    500,
    8,
    'restore the store from a backup; what was wrapped is damaged or of another volume',
  ),
  HOST_KEY_DAMAGED: row(
    'a key of host {nqn} does not open under cluster key {keyId}',
    500,
    8,
    'give the host its keys anew with `basalt host set-keys`',
  ),
  HOST_NOT_ADMITTED: row(
    'host {nqn} is not admitted: {problem}',
    409,
    8,
    'run the same version everywhere, or give the host its keys anew with `basalt host set-keys`',
  ),
  HOST_NEEDS_TLS: row(
    'host {nqn} has no key for TLS, and controllers of volume {volume} speak nothing else',
    409,
    8,
    'give it one: `nvme gen-tls-key --hmac=1`, `basalt host set-keys NQN --tls-psk-file`',
  ),
  HOST_KEYS_DIFFER: row(
    'host {nqn} has other keys already',
    409,
    5,
    'leave the keys out to use those that it has, or change them with `basalt host set-keys`',
  ),
  VOLUME_MULTI_ACTIVE: row(
    'volume {name} has several active controllers: {operation} is not supported for it yet',
    422,
    8,
    'use a volume with one active controller for that',
  ),
  VOLUME_SHRINK: row(
    'volume {name} has {servedBytes} bytes and cannot become smaller: a host may use what would be cut off',
    422,
    8,
    'make a smaller volume and copy what it should hold',
  ),
  VOLUME_GROWING: row(
    'volume {name} is growing to {wantedBytes} bytes',
    409,
    4,
    'wait until it has grown, then ask again',
  ),
  JOB_ENDED: row('job {id} has ended already ({state})', 409, 4, 'start a new one if it is still wanted'),
  JOB_FAILED: row('job {id} ({kind}) failed: {detail}', 409, 8, 'see `basalt job show`, then start a new one'),
  DRAIN_REFUSED: row('{kind} {name} cannot be drained: {problem}', 422, 8, 'make the change that the message names'),
  MOVE_REFUSED: row('volume {name} cannot be moved so: {problem}', 422, 8, 'make the change that the message names'),
  IDEMPOTENCY_CONFLICT: row(
    'idempotency key {key} was used for another request',
    409,
    5,
    'draw a new key for each new request',
  ),
  SNAPSHOT_FAILED: row(
    'snapshot {name} could not be made: {detail}',
    503,
    6,
    'bring the volume back to health, then ask for it again',
  ),
  ENGINE_FAILED: row('engine refused {method}: {detail}', 502, 1, 'see the log of the node'),
  API_UNREACHABLE: row(
    'API server at {endpoint} cannot be reached: {detail}',
    503,
    6,
    'check that `basalt api` runs there, or name another with --api',
  ),
} satisfies Record<string, ErrorRow>);

export type ErrorCode = keyof typeof errorTable;
export type ErrorFields = Readonly<Record<string, string | number | bigint | boolean | null>>;

/** The one error class that crosses module borders; what it means is its `code`. */
export class BasaltError extends Error {
  readonly code: ErrorCode;
  readonly fields: ErrorFields;

  constructor(code: ErrorCode, fields: ErrorFields = {}, options: { cause?: unknown } = {}) {
    super(formatMessage(errorTable[code].message, fields), options);
    this.name = 'BasaltError';
    this.code = code;
    this.fields = fields;
  }

  get row(): ErrorRow {
    return errorTable[this.code];
  }
}

/** True when `error` is a BasaltError, and has that code when one is given. */
export function isBasaltError(error: unknown, code?: ErrorCode): error is BasaltError {
  return error instanceof BasaltError && (code === undefined || error.code === code);
}

function formatMessage(template: string, fields: ErrorFields): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) =>
    Object.hasOwn(fields, name) ? String(fields[name]) : '?',
  );
}
