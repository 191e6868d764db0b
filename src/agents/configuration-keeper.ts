// SPDX-License-Identifier: Apache-2.0
//
// Keeps on each of this node's disks a signed copy of the configuration that concerns it (decision 015): written anew within
// about a second of a change, and never else.
//
// Invariants:  - of the two places the older one is written, and counts from when its header is stable
//              - a copy of a later generation is left alone: this store is the one that was lost

import type { Engine } from '../engine/engine.js';
import { isEngineError } from '../engine/engine.js';
import {
  configurationLvol,
  configurationLvolBytes,
  copyText,
  decodeBody,
  decodeHeader,
  encodePlace,
  headerBytes,
  type PlaceHeader,
  parseCopyText,
  placeBytes,
} from '../model/configuration-copy.js';
import { generationMax } from '../model/generation.js';
import type { Signer } from '../model/signer.js';
import { type ConfigurationObject, configurationOf, keptKinds, keptText } from '../reconcile/configuration.js';
import { type ClusterLink, onChangeOf } from './cluster-link.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import type { OpenDisk } from './disks.js';
import { noIdentity } from './node-identity.js';
import { ReconcileLoop } from './reconcile-loop.js';

export interface ConfigurationKeeperOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly node: string;
  readonly clusterId: string;
  readonly disks: () => readonly OpenDisk[];
}

/** What is known of the places on a disk. */
interface Kept {
  /** Without the revision: what is equal is not written again. */
  readonly said: string;
  readonly sequence: number;
}

const restMs = 1_000;

export class ConfigurationKeeper {
  readonly #options: ConfigurationKeeperOptions;
  readonly #loop: ReconcileLoop;
  readonly #log: RateLimitedLog;
  readonly #kept = new Map<string, Kept>();
  readonly #texts = new WeakMap<object, string>();
  #unsubscribe: (() => void) | null = null;

  constructor(options: ConfigurationKeeperOptions) {
    this.#options = options;
    const { clock, log } = options.context;
    this.#log = new RateLimitedLog(log, clock);
    this.#loop = new ReconcileLoop({
      name: 'configuration keeper',
      clock,
      log: this.#log,
      pass: (signal) => this.#pass(signal),
      restMs,
    });
  }

  start(): void {
    this.#unsubscribe = onChangeOf(this.#options.link, keptKinds, () => this.#loop.wake());
    this.#loop.start();
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    await this.#loop.stop();
  }

  async #pass(signal: AbortSignal): Promise<void> {
    const failures: unknown[] = [];
    for (const { lvstore } of this.#options.disks()) {
      signal.throwIfAborted();
      await this.#keep(lvstore).catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  async #keep(lvstore: OpenDisk['lvstore']): Promise<void> {
    const { link, node, clusterId, context } = this.#options;
    const cluster = link.state.get('cluster', '');
    // Nothing was heard of the store yet.
    if (cluster === null || cluster.id !== clusterId) return;
    const generation = cluster.generation ?? 0;
    const objects = configurationOf(link.state, lvstore.uuid).map((object) => ({
      key: object.key,
      revision: object.revision,
      text: this.#textOf(object),
    }));
    const copy = { cluster: clusterId, generation, revision: 0, disk: lvstore.uuid, node, objects };
    const said = copyText(copy);
    if (this.#kept.get(lvstore.uuid)?.said === said) return;
    const { engine, identity = noIdentity } = context;
    const name = await ensureLvol(engine, lvstore.name);
    const before = this.#kept.get(lvstore.uuid) ?? (await this.#found(name, generation, identity.signer));
    if (before.said !== said) {
      const text = copyText({ ...copy, revision: link.state.revision });
      await writeCopy(engine, name, { text, sequence: before.sequence + 1, signer: identity.signer });
    }
    this.#kept.set(lvstore.uuid, { said, sequence: before.said === said ? before.sequence : before.sequence + 1 });
  }

  async #found(name: string, generation: number, signer: Signer): Promise<Kept> {
    const { text, sequence } = await readCopy(this.#options.context.engine, name, signer);
    const copy = text === null ? null : parseCopyText(text);
    if (copy === null) return { said: '', sequence };
    if (copy.generation > generation && copy.generation <= generationMax)
      throw new Error(
        `${name} is of generation ${copy.generation} of the store, this one is of ${generation}: it was lost`,
      );
    return { said: copyText({ ...copy, revision: 0 }), sequence };
  }

  /** Objects are read once and then only exchanged for others. */
  #textOf(object: ConfigurationObject): string {
    const known = this.#texts.get(object.value);
    if (known !== undefined) return known;
    const text = keptText(object);
    this.#texts.set(object.value, text);
    return text;
  }
}

export interface ReadCopy {
  /** Null: there is none that counts. */
  readonly text: string | null;
  /** Of the place that was written last, also when only its header can be read. */
  readonly sequence: number;
  /** What is wrong with a place, if something is. */
  readonly problems: readonly string[];
}

/** The newer one of the two places that is whole. */
export async function readCopy(engine: Engine, bdev: string, signer: Signer): Promise<ReadCopy> {
  const handle = await engine.openBdev(bdev);
  const problems: string[] = [];
  try {
    const read = async (offset: number, bytes: number): Promise<Buffer | null> => {
      const memory = new Uint8Array(engine.allocate(bytes));
      try {
        await handle.read(offset, memory);
        return Buffer.from(memory);
      } catch (error) {
        problems.push(reason(error));
        return null;
      }
    };
    const found: (PlaceHeader & { at: number })[] = [];
    for (const at of [0, placeBytes]) {
      const bytes = await read(at, headerBytes);
      const header = bytes === null ? 'empty' : decodeHeader(bytes, signer);
      if (header === 'empty') continue;
      if ('problem' in header) problems.push(header.problem);
      else found.push({ ...header, at });
    }
    found.sort((a, b) => b.sequence - a.sequence);
    for (const header of found) {
      const whole = Math.max(headerBytes, Math.ceil(header.bodyBytes / headerBytes) * headerBytes);
      const body = await read(header.at + headerBytes, whole);
      const text = body === null ? null : decodeBody(body, header);
      if (text !== null) return { text, sequence: found[0]?.sequence ?? 0, problems };
      problems.push('its body is damaged');
    }
    return { text: null, sequence: found[0]?.sequence ?? 0, problems };
  } finally {
    await handle.close();
  }
}

interface CopyWrite {
  readonly text: string;
  readonly sequence: number;
  readonly signer: Signer;
}

async function writeCopy(engine: Engine, bdev: string, { text, sequence, signer }: CopyWrite): Promise<void> {
  const { header, body } = encodePlace(text, sequence, signer);
  const at = (sequence % 2) * placeBytes;
  const handle = await engine.openBdev(bdev);
  try {
    const memory = (bytes: Buffer): Uint8Array => {
      const view = new Uint8Array(engine.allocate(bytes.length));
      view.set(bytes);
      return view;
    };
    await handle.write(at + headerBytes, memory(body));
    await handle.flush();
    await handle.write(at, memory(header));
    await handle.flush();
  } finally {
    await handle.close();
  }
}

async function ensureLvol(engine: Engine, lvstore: string): Promise<string> {
  const params = {
    lvol_name: configurationLvol,
    size_in_mib: configurationLvolBytes / (1024 * 1024),
    lvs_name: lvstore,
  };
  try {
    await engine.rpc('bdev_lvol_create', { ...params, thin_provision: true });
  } catch (error) {
    if (!isEngineError(error, 'exists')) throw error;
  }
  return `${lvstore}/${configurationLvol}`;
}
