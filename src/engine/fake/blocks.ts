// SPDX-License-Identifier: Apache-2.0
//
// Bytes of fake devices: sparse blocks that read as zeroes until written. A fake "power loss" is not modelled: what was
// written stays.

export class SparseBlocks {
  readonly #blocks = new Map<number, Uint8Array>();
  readonly blockBytes: number;
  /** What shows where nothing was written here, below `#parentEnd`. */
  #parent: SparseBlocks | null;
  #parentEnd = Number.MAX_SAFE_INTEGER;

  constructor(blockBytes: number, parent: SparseBlocks | null = null) {
    this.blockBytes = blockBytes;
    this.#parent = parent;
  }

  get parent(): SparseBlocks | null {
    return this.#parent;
  }

  get count(): number {
    return this.#blocks.size;
  }

  read(offsetBlocks: number, countBlocks: number): Uint8Array {
    const out = new Uint8Array(countBlocks * this.blockBytes);
    for (let i = 0; i < countBlocks; i++) {
      const block = this.#find(offsetBlocks + i);
      if (block !== undefined) out.set(block, i * this.blockBytes);
    }
    return out;
  }

  write(offsetBlocks: number, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += this.blockBytes)
      this.#blocks.set(offsetBlocks + at / this.blockBytes, data.slice(at, at + this.blockBytes));
  }

  /** Blocks that were written here, in order. */
  written(): number[] {
    return [...this.#blocks.keys()].sort((a, b) => a - b);
  }

  /** Nothing is beyond this block any more, here or below. */
  truncate(endBlocks: number): void {
    for (const block of this.#blocks.keys()) if (block >= endBlocks) this.#blocks.delete(block);
    this.#parentEnd = Math.min(this.#parentEnd, endBlocks);
  }

  /** Takes what the parent has into this one; its parent is the parent's, or none. */
  takeParentIn(all: boolean): void {
    for (let parent = this.#parent; parent !== null; parent = this.#parent) {
      for (const [block, data] of parent.#blocks)
        if (block < this.#parentEnd && !this.#blocks.has(block)) this.#blocks.set(block, data);
      this.#parentEnd = Math.min(this.#parentEnd, parent.#parentEnd);
      this.#parent = parent.#parent;
      if (!all) return;
    }
  }

  #find(block: number): Uint8Array | undefined {
    let layer: SparseBlocks = this;
    for (;;) {
      const own = layer.#blocks.get(block);
      if (own !== undefined || layer.#parent === null || block >= layer.#parentEnd) return own;
      layer = layer.#parent;
    }
  }
}
