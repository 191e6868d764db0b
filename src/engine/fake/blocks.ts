// SPDX-License-Identifier: Apache-2.0
//
// Bytes of fake devices: sparse blocks that read as zeroes until written. A fake "power loss" is not modelled: what was
// written stays.

export class SparseBlocks {
  readonly #blocks = new Map<number, Uint8Array>();
  readonly blockBytes: number;

  constructor(blockBytes: number) {
    this.blockBytes = blockBytes;
  }

  get count(): number {
    return this.#blocks.size;
  }

  read(offsetBlocks: number, countBlocks: number): Uint8Array {
    const out = new Uint8Array(countBlocks * this.blockBytes);
    for (let i = 0; i < countBlocks; i++) {
      const block = this.#blocks.get(offsetBlocks + i);
      if (block !== undefined) out.set(block, i * this.blockBytes);
    }
    return out;
  }

  write(offsetBlocks: number, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += this.blockBytes)
      this.#blocks.set(offsetBlocks + at / this.blockBytes, data.slice(at, at + this.blockBytes));
  }

  /** Blocks that were written, in order. */
  written(): number[] {
    return [...this.#blocks.keys()].sort((a, b) => a - b);
  }
}
