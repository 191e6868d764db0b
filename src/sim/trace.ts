// SPDX-License-Identifier: Apache-2.0
//
// What happened in a simulated run, in order: hashed always, so that two runs of one seed can be compared, and told
// where somebody listens.

import { createHash } from 'node:crypto';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';

export interface TraceLine {
  readonly nowNs: number;
  readonly who: string;
  readonly what: string;
  readonly text: string;
}

export type TraceListener = (line: TraceLine) => void;

export class Trace {
  readonly #hash = createHash('sha256');
  readonly #nowNs: () => number;
  readonly #tell: TraceListener | null;
  #lines = 0;

  constructor(nowNs: () => number, tell: TraceListener | null) {
    this.#nowNs = nowNs;
    this.#tell = tell;
  }

  get lines(): number {
    return this.#lines;
  }

  add(who: string, what: string, text: string): void {
    this.#lines++;
    const nowNs = this.#nowNs();
    this.#hash.update(`${nowNs} ${who} ${what} ${text}\n`);
    this.#tell?.({ nowNs, who, what, text });
  }

  /** 16 hex digits. Nothing may be added afterwards. */
  digest(native: bigint): string {
    this.#hash.update(native.toString());
    return this.#hash.digest('hex').slice(0, 16);
  }
}

const widthMax = 180;
/** Their first eight digits tell them apart. */
const uuids = /([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;

/** For people: virtual seconds, who, what; without the calls that went well and say nothing. */
export function readable(write: (line: string) => void): TraceListener {
  return ({ nowNs, who, what, text }) => {
    const said = sayingOf(what, text);
    if (said === null) return;
    const plain = said.replaceAll(uuids, '$1').replaceAll('nqn.2026-01.io.basalt:', '');
    const short = plain.length > widthMax ? `${plain.slice(0, widthMax - 3)}...` : plain;
    write(`${(nowNs / 1e9).toFixed(6).padStart(12)}  ${who.padEnd(8)} ${short}`);
  };
}

function sayingOf(what: string, text: string): string | null {
  if (what === 'put' || what === 'delete') return changeText(what, text);
  if (what === 'note') return `== ${text}`;
  if (what.endsWith(' answer')) {
    const call = what.slice(0, -' answer'.length);
    return text.startsWith('{"error"') ? `${call} refused ${text.slice('{"error":'.length, -1)}` : null;
  }
  // Questions without a consequence.
  if (/_get_|^spdk_get|^framework_get/.test(what)) return null;
  return `${what} ${text}`.trimEnd();
}

/** `text`: key @revision value. */
function changeText(what: string, text: string): string | null {
  const [key = '', at = '', ...rest] = text.split(' ');
  const value = rest.join(' ');
  const name = key.slice(keys.root.length);
  if (what === 'delete') return `delete ${name} ${at}`;
  if (!key.startsWith(keys.leaderships)) return `put ${name} ${at} ${value}`;
  const { epoch, controller, clean, legs } = codecs.leadership.decode(value, key);
  const sets = legs.map(({ inSync }) => `[${inSync.map(({ replica }) => replica.slice(0, 8)).join(' ')}]`).join(' ');
  return `put ${name} ${at} epoch ${epoch} ${controller ?? 'nobody'}${clean ? ' clean' : ''} ${sets}`;
}
