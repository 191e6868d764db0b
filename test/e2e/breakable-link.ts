// SPDX-License-Identifier: Apache-2.0
// A TCP forwarder on the machine between a guest and a target, which can be cut: every connection is reset at once and new ones
// are refused, as they are when the process at the far end is killed.

import { connect, createServer, type Server, type Socket } from 'node:net';

export class BreakableLink {
  private readonly sockets_ = new Set<Socket>();
  private connections_ = 0;

  private constructor(
    private readonly server_: Server,
    readonly port: number,
  ) {}

  /** Connections accepted so far. */
  get connections(): number {
    return this.connections_;
  }

  /** Listens on a free port of 127.0.0.1 and forwards to `targetPort` there. */
  static async open(targetPort: number): Promise<BreakableLink> {
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', () => resolve());
    });
    const address = server.address();
    if (address === null || typeof address === 'string') {
      throw new Error('no port');
    }
    const link = new BreakableLink(server, address.port);
    server.on('connection', (inner) => link.forward(inner, targetPort));
    return link;
  }

  /** Resolves when nothing of the link is left. Safe to call twice. */
  async cut(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server_.close(() => resolve()));
    for (const socket of this.sockets_) {
      socket.resetAndDestroy();
    }
    await closed;
  }

  private forward(inner: Socket, targetPort: number): void {
    this.connections_ += 1;
    const outer = connect({ port: targetPort, host: '127.0.0.1', noDelay: true });
    for (const [from, to] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      this.sockets_.add(from);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.sockets_.delete(from);
        to.destroy();
      });
    }
  }
}
