// SPDX-License-Identifier: Apache-2.0
//
// Engine: one data-path engine behind one interface, whoever implements it (the native addon in this process, or the
// in-memory fake). It speaks the vocabulary of docs/rpc.md.
//
// Invariants:  - a method is answered or refused exactly once; a caller that gave up (signal, timeoutMs) learns nothing
//                about the outcome, the engine finishes what it began
//              - events are delivered in the order in which the engine raised them, never inside a call to the engine
//              - after close() every method, and every handle made here, throws IllegalState

import type { EngineEvent, Method, MethodResult, Params } from './methods.js';

export type * from './descriptions.js';
export * from './errors.js';
export type * from './methods.js';

export interface RpcOptions {
  /** Gives up waiting; rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Gives up waiting with EngineError -110. @default 30_000 */
  readonly timeoutMs?: number;
}

export const rpcTimeoutMsDefault = 30_000;

/** Parameters may be left out where all of them may. */
export type RpcArguments<M extends Method> =
  Record<string, never> extends Params<M>
    ? [params?: Params<M>, options?: RpcOptions]
    : [params: Params<M>, options?: RpcOptions];

export interface BdevHandleInfo {
  readonly name: string;
  readonly productName: string;
  readonly uuid: string;
  readonly blockSizeBytes: number;
  readonly countBlocks: number;
  readonly sizeBytes: number;
  /** Writes need a flush to survive the loss of power. */
  readonly volatileCache: boolean;
}

/**
 * One bdev opened for I/O from this process. Offsets and lengths are multiples of the block size, of any length;
 * otherwise the call rejects with a RangeError and nothing is done. The memory is the engine's until the promise
 * settles: it must not be changed, and is neither detached nor copied when it came from Engine.allocate().
 * Rejects with EngineIoError when the device answers with an error.
 */
export interface BdevHandle {
  /** As it is now: a bdev may grow while it is open. */
  readonly info: BdevHandleInfo;
  read(offsetBytes: number, into: ArrayBufferView): Promise<void>;
  write(offsetBytes: number, from: ArrayBufferView): Promise<void>;
  /** Everything whose write had resolved before is on stable media. */
  flush(): Promise<void>;
  /** Waits for what is in flight; a second close resolves with the first. */
  close(): Promise<void>;
}

export interface Engine {
  /** @throws {EngineError} with the method's code; {IllegalState} after close() */
  rpc<M extends Method>(method: M, ...args: RpcArguments<M>): Promise<MethodResult<M>>;
  /** Returns the function that ends the subscription. */
  on(event: 'event', listener: (event: EngineEvent) => void): () => void;
  /** Memory that reaches disks and wires without a copy: 4 KiB-aligned, zeroed, given back when it is collected. */
  allocate(bytes: number): ArrayBuffer;
  /** Several handles may be open on one bdev; it cannot be deleted meanwhile. */
  openBdev(name: string): Promise<BdevHandle>;
  /** Ends connections, exports and bdevs in that order; a second close resolves with the first. */
  close(): Promise<void>;
}
