// SPDX-License-Identifier: Apache-2.0
// A small NBD client (fixed newstyle, simple replies) over Unix sockets, one socket per controller of the volume; only the
// active one listens. A request whose connection was lost is sent again on the next one.
// A connection is never given up while its server may still carry out what it was sent: there is no time-out.

import { connect, type Socket } from 'node:net';
import { systemClock } from '../../src/env/clock.js';
import type { BlockDevice } from './load.js';

const requestMagic = 0x25609513;
const replyMagic = 0x67446698;
const optionGo = 7;
const replyAck = 1;
const commands = { read: 0, write: 1, flush: 3 } as const;
const retryMs = 50;
const negotiateMsMax = 1_000;

interface Request {
  readonly command: keyof typeof commands;
  readonly offsetBytes: number;
  readonly data: Buffer | null;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class NbdDevice implements BlockDevice {
  readonly #paths: readonly string[];
  readonly #exportName: string;
  readonly #waiting = new Map<bigint, Request>();
  #connection: NbdConnection | null = null;
  #nextCookie = 1n;
  #closed = false;
  /** Connections made so far. */
  connections = 0;

  private constructor(paths: readonly string[], exportName: string) {
    this.#paths = paths;
    this.#exportName = exportName;
  }

  static async connect(paths: readonly string[], exportName: string): Promise<NbdDevice> {
    const device = new NbdDevice(paths, exportName);
    await device.#reconnect();
    return device;
  }

  read(offsetBytes: number, into: Buffer): Promise<void> {
    return this.#submit('read', offsetBytes, into);
  }

  write(offsetBytes: number, from: Buffer): Promise<void> {
    return this.#submit('write', offsetBytes, from);
  }

  flush(): Promise<void> {
    return this.#submit('flush', 0, null);
  }

  allocate(bytes: number): Buffer {
    return Buffer.alloc(bytes);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#connection?.end();
  }

  #submit(command: keyof typeof commands, offsetBytes: number, data: Buffer | null): Promise<void> {
    return new Promise((resolve, reject) => {
      const cookie = this.#nextCookie++;
      const request = { command, offsetBytes, data, resolve, reject };
      this.#waiting.set(cookie, request);
      this.#connection?.send(cookie, request);
    });
  }

  /** Tries the paths in turn until one serves; then sends what waits, oldest first. */
  async #reconnect(): Promise<void> {
    for (let attempt = 0; !this.#closed; attempt++) {
      const path = this.#paths[attempt % this.#paths.length] ?? '';
      const connection = await NbdConnection.open(path, this.#exportName).catch(() => null);
      if (connection !== null) {
        this.connections++;
        connection.onReply = (cookie, error) => this.#answered(cookie, error);
        connection.expect = (cookie) => this.#waiting.get(cookie)?.data ?? null;
        connection.isRead = (cookie) => this.#waiting.get(cookie)?.command === 'read';
        connection.onLost = () => {
          this.#connection = null;
          void this.#reconnect();
        };
        this.#connection = connection;
        for (const [cookie, request] of this.#waiting) connection.send(cookie, request);
        connection.go();
        return;
      }
      await systemClock.sleep(retryMs);
    }
  }

  #answered(cookie: bigint, error: number): void {
    const request = this.#waiting.get(cookie);
    // ESHUTDOWN: the server is going away; the request is sent again when its connection is gone.
    if (request === undefined || error === 108) return;
    this.#waiting.delete(cookie);
    if (error === 0) request.resolve();
    else request.reject(new Error(`NBD error ${error}`));
  }
}

class NbdConnection {
  onReply: (cookie: bigint, error: number) => void = () => {};
  onLost: () => void = () => {};
  expect: (cookie: bigint) => Buffer | null = () => null;
  isRead: (cookie: bigint) => boolean = () => false;
  readonly #socket: Socket;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  #wake: (() => void) | null = null;
  #lost = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received.push(chunk);
      this.#receivedBytes += chunk.length;
      this.#wake?.();
    });
    socket.on('error', () => {});
    socket.once('close', () => {
      this.#lost = true;
      this.#wake?.();
    });
  }

  static async open(path: string, exportName: string): Promise<NbdConnection> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    const connection = new NbdConnection(socket);
    // A server that is stopped lets us connect and says nothing. Nothing was asked of it yet, so it may be left.
    const late = systemClock.setTimer(negotiateMsMax, () => socket.destroy());
    try {
      await connection.#negotiate(exportName);
      return connection;
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      late.cancel();
    }
  }

  /** Replies are read from now on. */
  go(): void {
    this.#readReplies().catch(() => {
      this.#socket.destroy();
      this.onLost();
    });
  }

  send(cookie: bigint, request: Request): void {
    const header = Buffer.alloc(28);
    header.writeUInt32BE(requestMagic, 0);
    header.writeUInt16BE(commands[request.command], 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(request.offsetBytes), 16);
    header.writeUInt32BE(request.data?.length ?? 0, 24);
    this.#socket.write(header);
    // A copy: the socket may still hold it when the request was answered on a later connection.
    if (request.command === 'write' && request.data !== null) this.#socket.write(Buffer.from(request.data));
  }

  end(): void {
    this.#socket.destroy();
  }

  async #negotiate(exportName: string): Promise<void> {
    await this.#take(18);
    const name = Buffer.from(exportName);
    const out = Buffer.alloc(4 + 16 + 4 + name.length + 2);
    out.writeUInt32BE(3, 0);
    out.write('IHAVEOPT', 4, 'latin1');
    out.writeUInt32BE(optionGo, 12);
    out.writeUInt32BE(4 + name.length + 2, 16);
    out.writeUInt32BE(name.length, 20);
    name.copy(out, 24);
    this.#socket.write(out);
    for (;;) {
      const head = await this.#take(20);
      const type = head.readUInt32BE(12);
      await this.#take(head.readUInt32BE(16));
      if (type === replyAck) return;
      if (type >= 0x8000_0000) throw new Error(`NBD option refused: ${type.toString(16)}`);
    }
  }

  async #readReplies(): Promise<never> {
    for (;;) {
      const head = await this.#take(16);
      if (head.readUInt32BE(0) !== replyMagic) throw new Error('not a simple reply');
      const error = head.readUInt32BE(4);
      const cookie = head.readBigUInt64BE(8);
      const into = this.isRead(cookie) && error === 0 ? this.expect(cookie) : null;
      if (into !== null) (await this.#take(into.length)).copy(into);
      this.onReply(cookie, error);
    }
  }

  async #take(bytes: number): Promise<Buffer> {
    while (this.#receivedBytes < bytes) {
      if (this.#lost) throw new Error('connection lost');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const all = this.#received.length === 1 ? (this.#received[0] as Buffer) : Buffer.concat(this.#received);
    this.#received = all.length > bytes ? [all.subarray(bytes)] : [];
    this.#receivedBytes = all.length - bytes;
    return all.subarray(0, bytes);
  }
}
