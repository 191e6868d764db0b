// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { compileConfig } from './config.js';

const engineOf = (engine: unknown, disks: object[] = [{ path: '/d' }]): unknown =>
  compileConfig({ nodes: [{ name: 'a', engine, disks }] }).nodes[0]?.engine;

describe("a node's engine", () => {
  it('is native unless an SPDK has the drives', () => {
    expect(engineOf(undefined)).toBe('native');
    expect(engineOf('fake')).toBe('fake');
    expect(engineOf({ kind: 'spdk', rpc: '/var/tmp/spdk.sock' })).toEqual({
      kind: 'spdk',
      rpc: '/var/tmp/spdk.sock',
      port: 4421,
    });
    expect(engineOf({ kind: 'spdk', rpc: '/s', port: 5000 })).toMatchObject({ port: 5000 });
  });

  it('of kind spdk is refused where it has nothing to do, or is asked for what it cannot', () => {
    const spdk = { kind: 'spdk', rpc: '/var/tmp/spdk.sock' };
    expect(() => engineOf(spdk, [])).toThrow('config.nodes[0].engine');
    expect(() => engineOf(spdk, [{ path: '/d', buffered: true }])).toThrow('config.nodes[0].disks[0].buffered');
    const made = { path: '0000:5e:00.0', createBytes: 2 ** 30 };
    expect(() => engineOf(spdk, [made])).toThrow('config.nodes[0].disks[0].createBytes');
    expect(() => engineOf({ kind: 'spdk' })).toThrow('config.nodes[0].engine');
    expect(() => engineOf({ ...spdk, port: 0 })).toThrow('config.nodes[0].engine');
  });
});

describe("a node's ports", () => {
  const at = (node: object): unknown => compileConfig({ nodes: [{ name: 'a', ...node }] }).nodes[0]?.secure;

  it('speak TLS where anybody may listen, and where that is asked for', () => {
    expect(at({})).toBe(false);
    expect(at({ address: '::1' })).toBe(false);
    expect(at({ secure: true })).toBe(true);
    expect(at({ address: '10.0.0.1' })).toBe(true);
    expect(at({ address: '10.0.0.1', trustedNetwork: true })).toBe(false);
  });

  it('are refused without TLS where nobody said that the network is trusted, and with both', () => {
    expect(() => at({ address: '10.0.0.1', secure: false })).toThrow('config.nodes[0].address: must be a loopback');
    expect(() => at({ address: '10.0.0.1', secure: true, trustedNetwork: true })).toThrow('config.nodes[0].secure');
  });
});
