// SPDX-License-Identifier: Apache-2.0
// JSON-RPC to an engined on its Unix socket: one call at a time, which is all that setting up takes.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export class JsonRpc {
  readonly #socket: Socket;
  #input = '';
  #lastId = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
  }

  static async connect(path: string): Promise<JsonRpc> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new JsonRpc(socket);
  }

  async call(method: string, params: object): Promise<unknown> {
    this.#lastId += 1;
    this.#socket.write(JSON.stringify({ jsonrpc: '2.0', id: this.#lastId, method, params }));
    const answer = await this.#answer(method);
    if (answer.error !== undefined) throw new Error(`${method}: ${answer.error.message}`);
    return answer.result;
  }

  close(): void {
    this.#socket.destroy();
  }

  async #answer(method: string): Promise<{ result?: unknown; error?: { message: string } }> {
    const deadline = AbortSignal.timeout(30_000);
    for (;;) {
      const [chunk] = (await once(this.#socket, 'data', { signal: deadline })) as [string];
      this.#input += chunk;
      try {
        const answer = JSON.parse(this.#input) as { id: number; result?: unknown; error?: { message: string } };
        this.#input = '';
        if (answer.id === this.#lastId) return answer;
        throw new Error(`${method}: an answer to another call`);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error; // not all there yet
      }
    }
  }
}
