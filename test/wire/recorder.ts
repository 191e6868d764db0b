// SPDX-License-Identifier: Apache-2.0
// A TCP forwarder that keeps what goes through it, and writes it as a capture that dissectors read. No privilege is
// needed: the packets are made up around the bytes.

import { connect, createServer, type Server, type Socket } from 'node:net';

interface Piece {
  readonly fromHost: boolean;
  readonly bytes: Buffer;
}

const targetPort = 4420;
const hostPortFirst = 50_000;
/** Of the made-up packets: IPv4 holds no more than 64 KiB. */
const segmentBytesMax = 16 * 1024;

export class Recorder {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #connections: Piece[][] = [];

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  /** Listens on a free port of 127.0.0.1 and forwards to `port` there. */
  static async open(port: number): Promise<Recorder> {
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', () => resolve());
    });
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    const recorder = new Recorder(server, address.port);
    server.on('connection', (host) => recorder.#forward(host, port));
    return recorder;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** All connections, one after the other, as a pcap file; the target is on port 4420 there. */
  capture(): Buffer {
    const header = Buffer.alloc(24);
    header.writeUInt32LE(0xa1b2c3d4, 0);
    header.writeUInt16LE(2, 4);
    header.writeUInt16LE(4, 6);
    header.writeUInt32LE(0x40000, 16);
    header.writeUInt32LE(101, 20); // raw IP
    return Buffer.concat([header, ...this.#connections.flatMap((pieces, i) => packets(pieces, hostPortFirst + i))]);
  }

  #forward(host: Socket, port: number): void {
    const pieces: Piece[] = [];
    this.#connections.push(pieces);
    const target = connect({ host: '127.0.0.1', port, noDelay: true });
    for (const [from, to, fromHost] of [
      [host, target, true],
      [target, host, false],
    ] as const) {
      this.#sockets.add(from);
      from.on('data', (bytes: Buffer) => {
        pieces.push({ fromHost, bytes: Buffer.from(bytes) });
        to.write(bytes);
      });
      from.on('end', () => to.end());
      from.on('error', () => to.destroy());
      from.on('close', () => this.#sockets.delete(from));
    }
  }
}

function packets(pieces: readonly Piece[], hostPort: number): Buffer[] {
  const sent = { host: 1, target: 1 };
  const out: Buffer[] = [];
  for (const { fromHost, bytes } of pieces) {
    for (let at = 0; at < bytes.length; at += segmentBytesMax) {
      const segment = bytes.subarray(at, at + segmentBytesMax);
      const [mine, theirs] = fromHost ? (['host', 'target'] as const) : (['target', 'host'] as const);
      out.push(packet(segment, { fromHost, hostPort, sequence: sent[mine], acknowledged: sent[theirs] }));
      sent[mine] = (sent[mine] + segment.length) >>> 0;
    }
  }
  return out;
}

interface Place {
  readonly fromHost: boolean;
  readonly hostPort: number;
  readonly sequence: number;
  readonly acknowledged: number;
}

function packet(payload: Buffer, { fromHost, hostPort, sequence, acknowledged }: Place): Buffer {
  const bytes = Buffer.alloc(16 + 40);
  const length = 40 + payload.length;
  bytes.writeUInt32LE(length, 8);
  bytes.writeUInt32LE(length, 12);
  const ip = bytes.subarray(16);
  ip[0] = 0x45;
  ip.writeUInt16BE(length, 2);
  ip[8] = 64;
  ip[9] = 6;
  const [from, to] = fromHost ? [1, 2] : [2, 1];
  ip.writeUInt32BE(0x0a000000 + from, 12);
  ip.writeUInt32BE(0x0a000000 + to, 16);
  const tcp = ip.subarray(20);
  tcp.writeUInt16BE(fromHost ? hostPort : targetPort, 0);
  tcp.writeUInt16BE(fromHost ? targetPort : hostPort, 2);
  tcp.writeUInt32BE(sequence, 4);
  tcp.writeUInt32BE(acknowledged, 8);
  tcp[12] = 0x50;
  tcp[13] = 0x18;
  tcp.writeUInt16BE(0xffff, 14);
  return Buffer.concat([bytes, payload]);
}
