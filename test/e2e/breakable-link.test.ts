// SPDX-License-Identifier: Apache-2.0

import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { expect, test } from 'vitest';
import { BreakableLink } from './breakable-link.js';

test('a link carries bytes both ways until it is cut, then resets its connections and refuses new ones', async () => {
  const echo = createServer((socket) => {
    socket.pipe(socket);
    socket.on('error', () => undefined);
  });
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  const link = await BreakableLink.open((echo.address() as AddressInfo).port);
  const client = connect(link.port, '127.0.0.1');
  try {
    client.write('through');
    const [answer] = (await once(client, 'data')) as [Buffer];
    expect(answer.toString()).toBe('through');
    expect(link.connections).toBe(1);

    const reset = new Promise<void>((resolve) => client.once('close', () => resolve()));
    const failed = new Promise<NodeJS.ErrnoException>((resolve) => client.once('error', resolve));
    await link.cut();
    await reset;
    expect((await failed).code).toBe('ECONNRESET');

    const late = connect(link.port, '127.0.0.1');
    const refused = await new Promise<NodeJS.ErrnoException>((resolve) => late.once('error', resolve));
    expect(refused.code).toBe('ECONNREFUSED');
    await link.cut();
  } finally {
    client.destroy();
    echo.close();
  }
});
