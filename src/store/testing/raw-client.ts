// SPDX-License-Identifier: Apache-2.0
//
// Bare etcd v3 calls, for tests that look at single messages and statuses.

import {
  type Client,
  credentials,
  type Metadata,
  makeGenericClientConstructor,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { type EtcdServices, loadEtcdServices } from '../embedded/messages.js';

export type Answer = { code: 'OK'; body: Record<string, unknown> } | { code: string; details: string };

type ServiceName = keyof EtcdServices;
type Call = (payload: object, done: (error: ServiceError | null, body: Record<string, unknown>) => void) => void;

interface WatchCall extends AsyncIterable<Record<string, unknown>> {
  write(message: object): void;
  cancel(): void;
  on(event: 'error', handler: () => void): void;
}

export class RawClient {
  readonly #clients: Record<ServiceName, Client>;

  constructor(endpoint: string) {
    const services = loadEtcdServices();
    const make = (name: ServiceName): Client =>
      new (makeGenericClientConstructor(services[name], name))(new URL(endpoint).host, credentials.createInsecure(), {
        'grpc.max_receive_message_length': -1,
        'grpc.max_send_message_length': -1,
      });
    this.#clients = { KV: make('KV'), Watch: make('Watch'), Lease: make('Lease'), Maintenance: make('Maintenance') };
  }

  call(service: ServiceName, method: string, payload: object): Promise<Answer> {
    const client = this.#clients[service];
    const call = (client as unknown as Record<string, Call>)[method]!;
    return new Promise((resolve) => {
      call.call(client, payload, (error, body) => {
        if (error === null) resolve({ code: 'OK', body });
        else resolve({ code: status[error.code], details: error.details });
      });
    });
  }

  watch(): WatchCall {
    const client = this.#clients.Watch as unknown as { watch(metadata?: Metadata): WatchCall };
    const call = client.watch();
    call.on('error', () => {});
    return call;
  }

  /** The events from `startRevision` to the newest revision of the whole store. */
  async eventsFrom(startRevision: number, lastRevision: number): Promise<unknown[]> {
    const call = this.watch();
    const all = Buffer.from([0]);
    call.write({ create_request: { key: all, range_end: all, start_revision: startRevision, prev_kv: true } });
    const events: { kv: { mod_revision: string } }[] = [];
    try {
      for await (const response of call) {
        if (response['canceled']) return [{ canceled: response['compact_revision'] }];
        events.push(...(response['events'] as typeof events));
        if (Number(events.at(-1)?.kv.mod_revision) >= lastRevision) return events;
      }
      return events;
    } finally {
      call.cancel();
    }
  }

  close(): void {
    for (const client of Object.values(this.#clients)) client.close();
  }
}
