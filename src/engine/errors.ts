// SPDX-License-Identifier: Apache-2.0
//
// What an engine answers when it cannot do what was asked. The codes are the vocabulary's (docs/rpc.md): JSON-RPC's own
// for malformed requests, SPDK's negative errno for states. The same codes come from the native engine and from the fake.

/** Names for the codes; the numbers are the contract. */
export const engineErrorCodes = Object.freeze({
  methodNotFound: -32601,
  invalidParams: -32602,
  internal: -32603,
  notFound: -2,
  io: -5,
  permission: -13,
  busy: -16,
  exists: -17,
  noDevice: -19,
  invalid: -22,
  noSpace: -28,
  noMemory: -12,
  corrupt: -74,
  unsupported: -95,
  closed: -108,
  timedOut: -110,
  unreachable: -111,
  fenced: -116,
});

export type EngineErrorName = keyof typeof engineErrorCodes;

/** A refused or failed RPC. `data` holds what the method promises beside the message (the higher epoch when fenced). */
export class EngineError extends Error {
  readonly code: number;
  readonly method: string;
  readonly data: Readonly<Record<string, unknown>> | null;

  constructor(code: number, method: string, message: string, data: Readonly<Record<string, unknown>> | null = null) {
    super(`${method}: ${message}`);
    this.name = 'EngineError';
    this.code = code;
    this.method = method;
    this.data = data;
  }

  is(name: EngineErrorName): boolean {
    return this.code === engineErrorCodes[name];
  }
}

export function isEngineError(error: unknown, name?: EngineErrorName): error is EngineError {
  return error instanceof EngineError && (name === undefined || error.is(name));
}

/** A read, write or flush that ended with an NVMe status that is not success. */
export class EngineIoError extends Error {
  readonly bdev: string;
  /** The NVMe status field without its phase tag: bits 7:0 code, 10:8 type, 14 do not retry. */
  readonly status: number;

  constructor(bdev: string, operation: string, status: number, text: string) {
    super(`${operation} on ${bdev}: ${text}`);
    this.name = 'EngineIoError';
    this.bdev = bdev;
    this.status = status;
  }

  /** Another controller holds this bdev's members; nothing is wrong with the device. */
  get isReservationConflict(): boolean {
    return (this.status & 0x7ff) === 0x083;
  }
  /** Path-related status: another path, or the same one later, may serve. */
  get isPathError(): boolean {
    return ((this.status >> 8) & 7) === 3;
  }
}

/** A handle was used after it was closed. */
export class IllegalState extends Error {
  readonly code = 'ILLEGAL_STATE';
  constructor(message: string) {
    super(message);
    this.name = 'IllegalState';
  }
}
