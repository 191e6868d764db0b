// SPDX-License-Identifier: Apache-2.0
//
// The gRPC services of the embedded store: unpack a request, ask the core, pack the answer.

import {
  type handleUnaryCall,
  type MethodDefinition,
  type Server,
  type ServerDuplexStream,
  type ServiceDefinition,
  status,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import type { Logger } from '../logger.js';
import { toNumber } from './checks.js';
import type { Core } from './core.js';
import type {
  DeleteRangeRequest,
  EtcdServices,
  Header,
  PutRequest,
  RangeRequest,
  TxnRequest,
  WatchRequest,
  WatchResponse,
} from './messages.js';
import { EtcdStatus, refusals } from './status.js';

/** The API that this server speaks; clients look at it, nothing here does. */
const apiVersion = '3.4.0';

const wireBytes = Symbol('bytes of the request on the wire');

type Sized = { [wireBytes]?: number };

export function addServices(
  server: Server,
  services: EtcdServices,
  core: Core,
  requestBytesMax: number,
  logger: Logger,
): void {
  const glue = new Glue(core, requestBytesMax, logger);
  server.addService(sized(services.KV), kvHandlers(core, glue));
  server.addService(sized(services.Lease), leaseHandlers(core, glue));
  server.addService(sized(services.Watch), { watch: (call: DuplexCall) => serveWatch(call, core, glue) });
  server.addService(sized(services.Maintenance), maintenanceHandlers(core, glue));
}

type DuplexCall = ServerDuplexStream<unknown, unknown>;
type Handlers = Record<string, UntypedHandleCall>;

class Glue {
  readonly #core: Core;
  readonly #requestBytesMax: number;
  readonly #logger: Logger;

  constructor(core: Core, requestBytesMax: number, logger: Logger) {
    this.#core = core;
    this.#requestBytesMax = requestBytesMax;
    this.#logger = logger;
  }

  header(revision: number): Header {
    const { clusterId, memberId } = this.#core.identity;
    return { cluster_id: clusterId, member_id: memberId, revision, raft_term: 1 };
  }

  /** An answer with its revision moved into a header. */
  withHeader<T extends { revision: number }>(answer: T): object {
    const { revision, ...rest } = answer;
    return { ...rest, header: this.header(revision) };
  }

  unary<Request>(answer: (request: Request) => Promise<object>): handleUnaryCall<Request, object> {
    return (call, callback) => {
      const settle = async (): Promise<void> => {
        try {
          callback(null, await answer(call.request));
        } catch (error) {
          callback(this.toStatus(error), null);
        }
      };
      void settle();
    };
  }

  /** A unary call that changes something: its size is bounded. */
  change<Request extends Sized>(answer: (request: Request) => Promise<object>): handleUnaryCall<Request, object> {
    return this.unary<Request>(async (request) => {
      if ((request[wireBytes] ?? 0) > this.#requestBytesMax) throw refusals.requestTooLarge();
      return answer(request);
    });
  }

  toStatus(error: unknown): { code: status; details: string } {
    if (error instanceof EtcdStatus) return { code: error.code, details: error.message };
    this.#logger.error({ err: error }, 'store: a request failed unexpectedly');
    return { code: status.INTERNAL, details: 'etcdserver: internal error' };
  }
}

function kvHandlers(core: Core, glue: Glue): Handlers {
  return {
    range: glue.unary<RangeRequest>(async (request) => glue.withHeader(await core.range(request))),
    put: glue.change<PutRequest & Sized>(async (request) => glue.withHeader(await core.put(request))),
    deleteRange: glue.change<DeleteRangeRequest & Sized>(async (request) =>
      glue.withHeader(await core.deleteRange(request)),
    ),
    txn: glue.change<TxnRequest & Sized>(async (request) => glue.withHeader(await core.txn(request))),
    compact: glue.unary<{ revision: string; physical: boolean }>(async (request) =>
      glue.withHeader(await core.compact(toNumber(request.revision), request.physical)),
    ),
  };
}

function leaseHandlers(core: Core, glue: Glue): Handlers {
  return {
    leaseGrant: glue.unary<{ TTL: string; ID: string }>(async (request) => {
      const { revision, id, ttlSeconds } = await core.leaseGrant(request.ID, toNumber(request.TTL));
      return { header: glue.header(revision), ID: id, TTL: ttlSeconds, error: '' };
    }),
    leaseRevoke: glue.unary<{ ID: string }>(async (request) => glue.withHeader(await core.leaseRevoke(request.ID))),
    leaseTimeToLive: glue.unary<{ ID: string; keys: boolean }>((request) =>
      core.look((revision) => ({ header: glue.header(revision), ID: request.ID, ...timeToLive(core, request) })),
    ),
    leaseLeases: glue.unary<object>(() =>
      core.look((revision) => ({ header: glue.header(revision), leases: core.lessor.ids().map((ID) => ({ ID })) })),
    ),
    leaseKeepAlive: (call: DuplexCall) => serveKeepAlive(call, core, glue),
  };
}

function timeToLive(core: Core, request: { ID: string; keys: boolean }): object {
  const lease = core.lessor.live(request.ID);
  if (lease === null) return { TTL: -1, grantedTTL: 0, keys: [] };
  const keys = request.keys ? [...lease.keys].sort().map((key) => Buffer.from(key, 'latin1')) : [];
  return { TTL: Math.floor(core.lessor.remainingSeconds(lease)), grantedTTL: lease.ttlSeconds, keys };
}

function maintenanceHandlers(core: Core, glue: Glue): Handlers {
  return {
    status: glue.unary<object>(() =>
      core.look((revision) => {
        const { file, inUse } = core.sizeBytes();
        return {
          header: glue.header(revision),
          version: apiVersion,
          dbSize: file,
          dbSizeInUse: Math.min(inUse, file),
          leader: core.identity.memberId,
          raftIndex: revision,
          raftTerm: 1,
          raftAppliedIndex: revision,
          errors: [],
          isLearner: false,
        };
      }),
    ),
    alarm: glue.unary<{ action: number }>((request) => {
      if (request.action !== 0) throw refusals.alarmUnsupported();
      return core.look((revision) => ({ header: glue.header(revision), alarms: [] }));
    }),
  };
}

function serveKeepAlive(call: DuplexCall, core: Core, glue: Glue): void {
  call.on('data', (request: { ID: string }) => {
    const lease = core.lessor.live(request.ID);
    if (lease !== null) core.lessor.renew(lease);
    call.write({ header: glue.header(core.published), ID: request.ID, TTL: lease?.ttlSeconds ?? 0 });
  });
  endWithClient(call, () => {});
}

function serveWatch(call: DuplexCall, core: Core, glue: Glue): void {
  const stream = core.hub.open((response: WatchResponse) => call.write(glue.withHeader(response)));
  call.on('data', (request: WatchRequest) => {
    switch (request.request_union) {
      case 'create_request':
        return stream.create(request.create_request);
      case 'cancel_request':
        return stream.cancel(toNumber(request.cancel_request.watch_id));
      case 'progress_request':
        return stream.askProgress();
      default:
        return undefined;
    }
  });
  call.on('drain', () => stream.drained());
  endWithClient(call, () => stream.close());
}

/** Ends our half when the client ended its own, and cleans up however the call came to its end. */
function endWithClient(call: DuplexCall, cleanUp: () => void): void {
  call.on('end', () => {
    cleanUp();
    call.end();
  });
  call.on('cancelled', cleanUp);
  call.on('error', cleanUp);
  call.on('close', cleanUp);
}

/** The service, with each decoded request remembering its size on the wire. */
function sized(service: ServiceDefinition): ServiceDefinition {
  const entries = Object.entries(service).map(([name, method]: [string, MethodDefinition<unknown, unknown>]) => {
    const requestDeserialize = (bytes: Buffer): unknown =>
      Object.assign(method.requestDeserialize(bytes) as object, { [wireBytes]: bytes.length });
    return [name, { ...method, requestDeserialize }];
  });
  return Object.fromEntries(entries) as ServiceDefinition;
}
