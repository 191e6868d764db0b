// SPDX-License-Identifier: Apache-2.0
//
// What the command line needs from the programs above it: daemons are composed in bin/, not here.

import type { CompiledConfig, CompiledNode } from '../model/config.js';
import type { RebuildChoice, RebuildFindings, SurveyedDisk } from '../model/survey.js';

export interface DaemonOutput {
  /** One line on standard output when the daemon is ready. */
  readonly json: boolean;
}

export interface FsckReport {
  /** No errors: a daemon would take the disk. */
  readonly sound: boolean;
  readonly problems: readonly { readonly severity: 'error' | 'warning'; readonly message: string }[];
  readonly text: string;
}

export interface ScrubChoice {
  readonly rpcPath: string;
  /** Of an lvol, leg or raid. */
  readonly name: string;
  /** 0: as fast as it goes. */
  readonly bytesPerS: number;
  readonly fromBytes: number;
  readonly repair: boolean;
}

export interface ScrubReport {
  readonly kind: string;
  /** Not: its end was asked for before. */
  readonly finished: boolean;
  readonly percent: number;
  /** Where to begin again, when it was ended and can be gone on with. */
  readonly nextBytes: number | null;
  readonly sound: boolean;
  readonly counts: Readonly<Record<string, number>>;
}

/** An engine that runs alone; null: the engine's own default. */
export interface EngineChoice {
  readonly rpcPath: string;
  readonly reactors: number;
  readonly cores: readonly number[];
  readonly poll: 'adaptive' | 'busy' | 'interrupt';
  readonly memoryBytes: number | null;
}

/** What disks of one machine say of their cluster. */
export interface SurveyFile {
  readonly basaltSurvey: number;
  readonly disks: readonly SurveyedDisk[];
}

export interface StoreRebuildChoice extends RebuildChoice {
  readonly surveys: readonly SurveyFile[];
  /** Not: it is only shown. */
  readonly write: boolean;
}

export interface StoreRebuildReport extends RebuildFindings {
  readonly objectCount: number;
  readonly written: boolean;
}

export interface Launchers {
  /** Looks at the lvstore on a disk without writing. */
  fsck(path: string, options: { dump: boolean; buffered: boolean }): Promise<FsckReport>;
  /** Scrubs what an engine behind a socket has; the first interrupt ends it. */
  scrub(
    choice: ScrubChoice,
    progress: (percent: number, counts: Readonly<Record<string, number>>) => void,
  ): Promise<ScrubReport>;
  storeSurvey(
    config: CompiledConfig,
    disks: readonly { readonly node: string; readonly path: string; readonly buffered: boolean }[],
  ): Promise<SurveyFile>;
  storeRebuild(config: CompiledConfig, choice: StoreRebuildChoice): Promise<StoreRebuildReport>;
  /** Draws a key into the machine's key file, or makes the file; null: there is one, and `how` did not ask for another. */
  drawKey(file: string, how: 'create' | 'add', kind: 'cluster' | 'node'): Promise<{ id: string } | null>;
  /** Each resolves with the exit code when the daemon has ended. */
  store(config: CompiledConfig, output: DaemonOutput): Promise<number>;
  api(config: CompiledConfig, output: DaemonOutput): Promise<number>;
  node(config: CompiledConfig, node: CompiledNode, output: DaemonOutput): Promise<number>;
  engine(config: CompiledConfig, choice: EngineChoice, output: DaemonOutput): Promise<number>;
  /** `configPath` is handed to the child processes. */
  up(config: CompiledConfig, configPath: string, output: DaemonOutput): Promise<number>;
}

/** What a command touches of the process it runs in. */
export interface CliWorld {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  readonly readFile: (path: string) => Promise<string>;
  /** Rejects when others may open it. */
  readonly readPrivateFile: (path: string) => Promise<string>;
  /** Mode 0600, with what `make` gives; false: there is one already, `make` was not asked. */
  readonly fillPrivateFile: (path: string, make: () => Promise<string>) => Promise<boolean>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly now: () => number;
  readonly sleep: (delayMs: number) => Promise<void>;
  readonly launchers: Launchers;
  readonly version: string;
}
