// SPDX-License-Identifier: Apache-2.0
//
// Refused: how the fake's handlers say no; the engine turns it into an EngineError with the method's name.

import { type EngineErrorName, engineErrorCodes } from '../engine.js';

export class Refused extends Error {
  readonly code: number;
  data: Record<string, unknown> | null;
  constructor(name: EngineErrorName, message: string, data: Record<string, unknown> | null = null) {
    super(message);
    this.code = engineErrorCodes[name];
    this.data = data;
  }
}

/** How an I/O of the fake ends badly: an NVMe status. */
export class IoStatus extends Error {
  readonly status: number;
  constructor(status: number, text: string) {
    super(text);
    this.status = status;
  }
}

export const reservationConflict = (): IoStatus => new IoStatus(0x083, 'Reservation Conflict (0x083)');
export const anaInaccessible = (): IoStatus => new IoStatus(0x302, 'Asymmetric Access Inaccessible (0x302)');
export const hostPathError = (): IoStatus => new IoStatus(0x370, 'Host Path Error (0x370)');
export const writeProtected = (): IoStatus => new IoStatus(0x4020, 'Namespace is Write Protected (0x020, DNR)');
export const writeFault = (): IoStatus => new IoStatus(0x280, 'Write Fault (0x280)');
export const unrecoveredReadError = (): IoStatus => new IoStatus(0x281, 'Unrecovered Read Error (0x281)');
export const internalError = (): IoStatus => new IoStatus(0x006, 'Internal Error (0x006)');
