// SPDX-License-Identifier: Apache-2.0
//
// JsonSplitter: cuts a stream of JSON objects, with or without white space between them, into its values. That is how
// JSON-RPC comes out of a Unix socket: no lengths, no line ends.
//
// Invariants:  - a byte is looked at once, however the stream is cut into chunks
//              - memory is bounded: a value larger than `bytesMax`, or a stream that is no object, is an error

const bytesMaxDefault = 64 * 2 ** 20;
const [quote, backslash, open, close, openList, closeList] = [...'"\\{}[]'].map((char) => char.charCodeAt(0));

export class JsonSplitter {
  readonly #bytesMax: number;
  #text = '';
  #at = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;

  constructor(bytesMax = bytesMaxDefault) {
    this.#bytesMax = bytesMax;
  }

  /**
   * The values that are complete now, as text.
   * @throws {Error} when what comes is no sequence of objects, or too long; the stream is of no further use then
   */
  push(chunk: string): string[] {
    this.#text += chunk;
    const values: string[] = [];
    for (; this.#at < this.#text.length; this.#at++) {
      if (!this.#ends(this.#text.charCodeAt(this.#at))) continue;
      values.push(this.#text.slice(0, this.#at + 1).trim());
      this.#text = this.#text.slice(this.#at + 1);
      this.#at = -1;
    }
    if (this.#text.length > this.#bytesMax) throw new Error(`a JSON value of more than ${this.#bytesMax} characters`);
    return values;
  }

  /** Whether a value of the outermost level ends with this character. */
  #ends(char: number): boolean {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (char === backslash) this.#escaped = true;
      else if (char === quote) this.#inString = false;
      return false;
    }
    if (char === open || char === openList) this.#depth++;
    else if (this.#depth === 0 && char > 0x20) throw new Error('not a JSON object');
    else if (char === quote) this.#inString = true;
    else if (char === close || char === closeList) return --this.#depth === 0;
    return false;
  }
}
