// SPDX-License-Identifier: Apache-2.0
//
// Goal: whatever a client sends to the embedded store, and whatever lies in its files, it answers with a status that etcd
// has, never fails inside, and serves on.
// Method: random messages of every call, the same with bytes changed, random bytes in their place, random records. A failure prints its seed; with
// BASALT_FUZZ_RUNS the number of runs grows.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type ClientHttp2Session, connect } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BasaltError } from '../../model/errors.js';
import { silentLogger } from '../logger.js';
import { RawClient } from '../testing/raw-client.js';
import { formatFile, readFormat } from './format.js';
import { loadEtcdServices } from './messages.js';
import {
  checkCrc,
  decodeLease,
  decodeLeaseKey,
  decodeVersion,
  encodeLease,
  encodeRevisionKey,
  encodeVersion,
  RecordDamaged,
  sealCrc,
} from './record.js';
import { type EmbeddedStore, startEmbeddedStore } from './server.js';

const runs = Number(process.env['BASALT_FUZZ_RUNS'] ?? 60);

/** What etcd answers; INTERNAL and UNKNOWN would be a failure inside. */
const statuses = [
  'OK',
  'INVALID_ARGUMENT',
  'OUT_OF_RANGE',
  'NOT_FOUND',
  'FAILED_PRECONDITION',
  'RESOURCE_EXHAUSTED',
  'UNIMPLEMENTED',
];

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 8 }).map((value) => Buffer.from(value)),
  fc.constantFrom('', '\0', '/a', '/a/b', '/b', '\xff').map((text) => Buffer.from(text, 'latin1')),
);
const int64 = fc.oneof(
  fc.integer({ min: -2, max: 12 }).map(String),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String),
);
const small = fc.integer({ min: -1, max: 7 });
const flag = fc.boolean();

const rangeRequest = fc.record(
  {
    key: bytes,
    range_end: bytes,
    limit: int64,
    revision: int64,
    sort_order: small,
    sort_target: small,
    serializable: flag,
    keys_only: flag,
    count_only: flag,
    min_mod_revision: int64,
    max_mod_revision: int64,
    min_create_revision: int64,
    max_create_revision: int64,
  },
  { requiredKeys: [] },
);
const putRequest = fc.record(
  { key: bytes, value: bytes, lease: int64, prev_kv: flag, ignore_value: flag, ignore_lease: flag },
  { requiredKeys: [] },
);
const deleteRequest = fc.record({ key: bytes, range_end: bytes, prev_kv: flag }, { requiredKeys: [] });
const compare = fc.record(
  {
    result: small,
    target: small,
    key: bytes,
    range_end: bytes,
    version: int64,
    create_revision: int64,
    mod_revision: int64,
    value: bytes,
    lease: int64,
  },
  { requiredKeys: ['key'] },
);
const { txn } = fc.letrec<{ txn: object; op: object }>((tie) => ({
  op: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    rangeRequest.map((request_range) => ({ request_range })),
    putRequest.map((request_put) => ({ request_put })),
    deleteRequest.map((request_delete_range) => ({ request_delete_range })),
    fc.constant({}),
    tie('txn').map((request_txn) => ({ request_txn })),
  ),
  txn: fc.record({
    compare: fc.array(compare, { maxLength: 3 }),
    success: fc.array(tie('op'), { maxLength: 4 }),
    failure: fc.array(tie('op'), { maxLength: 4 }),
  }),
}));

const unary = [
  ['KV', 'range', rangeRequest],
  ['KV', 'put', putRequest],
  ['KV', 'deleteRange', deleteRequest],
  ['KV', 'txn', txn],
  ['KV', 'compact', fc.record({ revision: int64, physical: flag }, { requiredKeys: [] })],
  ['Lease', 'leaseGrant', fc.record({ TTL: int64, ID: int64 }, { requiredKeys: [] })],
  ['Lease', 'leaseRevoke', fc.record({ ID: int64 }, { requiredKeys: [] })],
  ['Lease', 'leaseTimeToLive', fc.record({ ID: int64, keys: flag }, { requiredKeys: [] })],
  ['Lease', 'leaseLeases', fc.constant({})],
  ['Maintenance', 'status', fc.constant({})],
  ['Maintenance', 'alarm', fc.record({ action: small, memberID: int64, alarm: small }, { requiredKeys: [] })],
] as const;
const anyCall = fc.oneof(
  ...unary.map(([service, method, request]) =>
    fc.record({ service: fc.constant(service), method: fc.constant(method), request }),
  ),
);

const watchMessage = fc.oneof(
  fc
    .record(
      {
        key: bytes,
        range_end: bytes,
        start_revision: int64,
        progress_notify: flag,
        filters: fc.array(small, { maxLength: 3 }),
        prev_kv: flag,
        watch_id: int64,
        fragment: flag,
      },
      { requiredKeys: [] },
    )
    .map((create_request) => ({ create_request })),
  fc.record({ watch_id: int64 }).map((cancel_request) => ({ cancel_request })),
  fc.constant({ progress_request: {} }),
  fc.constant({}),
);

const byteChange = fc.record({
  how: fc.constantFrom('set', 'insert', 'remove', 'cut', 'repeat' as const),
  at: fc.nat(200),
  byte: fc.oneof(fc.constantFrom(0, 0x7f, 0x80, 0xff), fc.nat(255)),
});
type ByteChange = typeof byteChange extends fc.Arbitrary<infer T> ? T : never;

function changed(body: Buffer, { how, at, byte }: ByteChange): Buffer {
  const place = at % (body.length + 1);
  const head = body.subarray(0, place);
  const tail = body.subarray(place);
  if (how === 'insert') return Buffer.concat([head, Buffer.from([byte]), tail]);
  if (how === 'set') return Buffer.concat([head, Buffer.from([byte]), tail.subarray(1)]);
  if (how === 'remove') return Buffer.concat([head, tail.subarray(1 + (byte % 8))]);
  if (how === 'repeat') return Buffer.concat([body, tail]);
  return Buffer.from(head);
}

describe('embedded store, random requests', () => {
  const failures: unknown[] = [];
  let directory: string;
  let server: EmbeddedStore;
  let client: RawClient;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'basalt-store-fuzz-'));
    const logger = { ...silentLogger, error: (fields: object) => failures.push(fields) };
    server = await startEmbeddedStore({ directory, host: '127.0.0.1', port: 0, logger });
    client = new RawClient(server.endpoint);
  });
  afterAll(async () => {
    client.close();
    await server.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const expectServes = async (): Promise<void> => {
    const key = Buffer.from('/serves');
    expect(await client.call('KV', 'put', { key, value: key })).toMatchObject({ code: 'OK' });
    expect(await client.call('KV', 'range', { key })).toMatchObject({ code: 'OK', body: { count: '1' } });
    expect(failures).toEqual([]);
  };

  it('answers any message of any call with a status that etcd has', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyCall, { maxLength: 12 }), async (calls) => {
        const answers = await Promise.all(
          calls.map(({ service, method, request }) => client.call(service, method, request)),
        );
        for (const answer of answers) expect(statuses).toContain(answer.code);
        expect(failures).toEqual([]);
      }),
      { numRuns: runs },
    );
    await expectServes();
  });

  it('takes any messages on a watch, in any order, and ends with it', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(watchMessage, { maxLength: 8 }), async (messages) => {
        const watch = client.watch();
        for (const message of messages) watch.write(message);
        // A created watch is answered; this one always is one.
        watch.write({ create_request: { key: Buffer.from('/last') } });
        for await (const answer of watch) {
          expect(answer).toHaveProperty('watch_id');
          if (answer['created'] === true || answer['canceled'] === true) break;
        }
        watch.cancel();
        expect(failures).toEqual([]);
      }),
      { numRuns: runs },
    );
    await expectServes();
  });

  it('answers any bytes in the place of a message, and messages with bytes changed', { timeout: 120_000 }, async () => {
    const session = connect(server.endpoint);
    session.on('error', () => {});
    const services = loadEtcdServices();
    const pathOf = (service: string, method: string): string =>
      `/etcdserverpb.${service}/${method[0]!.toUpperCase()}${method.slice(1)}`;
    const anyBody = fc.record({
      path: fc.constantFrom(...unary.map(([service, method]) => pathOf(service, method))),
      body: fc.uint8Array({ maxLength: 64 }).map((value) => Buffer.from(value)),
    });
    const nearlyRight = fc
      .tuple(anyCall, fc.array(byteChange, { minLength: 1, maxLength: 4 }))
      .map(([{ service, method, request }, changes]) => {
        const definition = Object.values(services[service]).find((call) => call.path === pathOf(service, method))!;
        return { path: definition.path, body: changes.reduce(changed, definition.requestSerialize(request)) };
      });
    try {
      await fc.assert(
        fc.asyncProperty(fc.oneof(anyBody, nearlyRight), fc.integer({ min: 0, max: 7 }), async (sent, frame) => {
          const length = Buffer.alloc(5);
          length.writeUInt32BE(sent.body.length, 1);
          const body = frame > 0 ? Buffer.concat([length, sent.body]) : sent.body;
          const status = await post(session, sent.path, body);
          expect(status).toMatch(/^\d+$/);
          expect(failures).toEqual([]);
        }),
        { numRuns: runs * 4 },
      );
    } finally {
      session.destroy();
    }
    await expectServes();
  });
});

/** The gRPC status of one call whose body is these bytes. */
function post(session: ClientHttp2Session, path: string, body: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const seen = (headers: Record<string, unknown>): void => {
      if (headers['grpc-status'] !== undefined) resolve(String(headers['grpc-status']));
    };
    stream.on('response', seen);
    stream.on('trailers', seen);
    stream.on('error', reject);
    stream.on('close', () => reject(new Error(`${path}: closed without a status`)));
    stream.resume();
    stream.end(body);
  });
}

describe('embedded store, random records', () => {
  /** Decodes, or says that it is damaged; anything else is a failure. */
  const decoded = <T>(decode: () => T): T | null => {
    try {
      return decode();
    } catch (error) {
      if (error instanceof RecordDamaged) return null;
      throw error;
    }
  };
  const sealed = (value: Uint8Array, seal: boolean): Buffer => {
    const record = Buffer.from(value);
    return seal && record.length >= 4 ? sealCrc(record) : record;
  };
  const anyBytes = fc.uint8Array({ maxLength: 96 });

  it('uses a version only when encoding it gives the same bytes', () => {
    fc.assert(
      fc.property(anyBytes, fc.uint8Array({ maxLength: 14 }), flag, flag, (value, key, seal, rightKey) => {
        const name = rightKey ? encodeRevisionKey(7, 1) : Buffer.from(key);
        const record = sealed(value, seal);
        if (record.length > 4 && seal) {
          record[4] = 1 + (record[4]! & 1);
          sealCrc(record);
        }
        const version = decoded(() => decodeVersion(name, record));
        if (version === null) return;
        // A tombstone has no value; bytes behind its key are dropped.
        const again = encodeVersion(version);
        if (version.value !== null) expect(again).toEqual(record);
      }),
      { numRuns: runs * 20 },
    );
  });

  it('uses a lease only when encoding it gives the same bytes', () => {
    fc.assert(
      fc.property(anyBytes, flag, (value, seal) => {
        const record = sealed(value, seal);
        const ttl = decoded(() => decodeLease(record));
        if (ttl !== null) expect(encodeLease(ttl)).toEqual(record.subarray(0, 12));
        decoded(() => decodeLeaseKey(Buffer.from(value)));
        decoded(() => checkCrc('record', record, 4));
      }),
      { numRuns: runs * 20 },
    );
  });

  it('accepts or refuses any FORMAT file, by name', () => {
    const directory = mkdtempSync(join(tmpdir(), 'basalt-store-fuzz-'));
    const fields = fc.record(
      {
        magic: fc.constantFrom('basalt-store', 'other', 1),
        version: fc.constantFrom(1, 2, '1', -1, null),
        compatible: fc.oneof(fc.integer(), fc.jsonValue()),
        incompatible: fc.oneof(fc.constantFrom(0, 1, 2 ** 40), fc.jsonValue()),
        storeId: fc.oneof(fc.string(), fc.jsonValue()),
        state: fc.oneof(fc.constantFrom('ready', 'creating', ''), fc.jsonValue()),
      },
      { requiredKeys: [] },
    );
    try {
      fc.assert(
        fc.property(
          fc.oneof(
            fc.jsonValue().map((value) => JSON.stringify(value)),
            fields.map((value) => JSON.stringify(value)),
            fc.string(),
          ),
          (text) => {
            writeFileSync(join(directory, formatFile), text);
            try {
              expect(readFormat(directory)).toHaveProperty('storeId');
            } catch (error) {
              expect(error).toBeInstanceOf(BasaltError);
              expect((error as BasaltError).code).toBe('STORE_FORMAT_UNKNOWN');
            }
          },
        ),
        { numRuns: runs },
      );
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
