// SPDX-License-Identifier: Apache-2.0
//
// What programs import: `import { Cluster, Engine } from 'basalt'`.

import type { Engine as EngineInterface } from './engine/engine.js';
import { createNativeEngine, type NativeEngineOptions } from './engine/native/native-engine.js';

export { ApiClient } from './client/api-client.js';
export { Cluster, type ConnectOptions, type OpenOptions, Volume } from './cluster.js';
export { type AttachedEngine, type AttachedEngineOptions, attachEngine } from './engine/attached/attached-engine.js';
export type { Capabilities, Capability } from './engine/attached/capabilities.js';
export { type BdevHandle, EngineError, type EngineEvent, EngineIoError, IllegalState } from './engine/engine.js';
export { refuseCoreDumps } from './engine/native/core-dumps.js';
export { BasaltError, type ErrorCode, errorTable, isBasaltError } from './model/errors.js';

export type Engine = EngineInterface;

/** `Engine.create()` starts an engine in this process. */
export const Engine = Object.freeze({
  create: (options: NativeEngineOptions = {}): EngineInterface => createNativeEngine(options),
});
