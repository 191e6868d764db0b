// SPDX-License-Identifier: Apache-2.0
//
// The etcd v3 messages as the loader of the .proto files hands them over: 64-bit numbers as decimal
// strings when received (numbers and strings when sent), bytes as Buffers, every field present,
// a oneof's chosen member named in a field of its own.

import { createRequire } from 'node:module';
import { type GrpcObject, loadPackageDefinition, type ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

type Int64 = string | number;

export interface Header {
  cluster_id: string;
  member_id: string;
  revision: Int64;
  raft_term: Int64;
}

export interface KeyValue {
  key: Buffer;
  create_revision: Int64;
  mod_revision: Int64;
  version: Int64;
  value: Buffer;
  lease: Int64;
}

export interface RangeRequest {
  key: Buffer;
  range_end: Buffer;
  limit: string;
  revision: string;
  sort_order: number;
  sort_target: number;
  keys_only: boolean;
  count_only: boolean;
  min_mod_revision: string;
  max_mod_revision: string;
  min_create_revision: string;
  max_create_revision: string;
}

export interface PutRequest {
  key: Buffer;
  value: Buffer;
  lease: string;
  prev_kv: boolean;
  ignore_value: boolean;
  ignore_lease: boolean;
}

export interface DeleteRangeRequest {
  key: Buffer;
  range_end: Buffer;
  prev_kv: boolean;
}

export interface Compare {
  result: number;
  target: number;
  key: Buffer;
  range_end: Buffer;
  version?: string;
  create_revision?: string;
  mod_revision?: string;
  value?: Buffer;
  lease?: string;
}

export type RequestOp =
  | { request: 'request_range'; request_range: RangeRequest }
  | { request: 'request_put'; request_put: PutRequest }
  | { request: 'request_delete_range'; request_delete_range: DeleteRangeRequest }
  | { request: 'request_txn'; request_txn: TxnRequest }
  | { request?: undefined };

export interface TxnRequest {
  compare: Compare[];
  success: RequestOp[];
  failure: RequestOp[];
}

export interface WatchCreateRequest {
  key: Buffer;
  range_end: Buffer;
  start_revision: string;
  progress_notify: boolean;
  filters: number[];
  prev_kv: boolean;
  watch_id: string;
}

export type WatchRequest =
  | { request_union: 'create_request'; create_request: WatchCreateRequest }
  | { request_union: 'cancel_request'; cancel_request: { watch_id: string } }
  | { request_union: 'progress_request' }
  | { request_union?: undefined };

export interface WatchResponse {
  watch_id: Int64;
  revision: number;
  created?: boolean;
  canceled?: boolean;
  compact_revision?: number;
  cancel_reason?: string;
  events?: { type: 0 | 1; kv: KeyValue; prev_kv?: KeyValue }[];
}

export type EtcdServices = Record<'KV' | 'Watch' | 'Lease' | 'Maintenance', ServiceDefinition>;

/** Loads the service definitions that the installed etcd3 package brings along. */
export function loadEtcdServices(): EtcdServices {
  const protoPath = createRequire(import.meta.url).resolve('etcd3/proto/rpc.proto');
  const loaded = loadPackageDefinition(
    loadSync(protoPath, { keepCase: true, longs: String, defaults: true, oneofs: true }),
  );
  const services = loaded['etcdserverpb'] as GrpcObject;
  const definition = (name: string): ServiceDefinition =>
    (services[name] as unknown as { service: ServiceDefinition }).service;
  return {
    KV: definition('KV'),
    Watch: definition('Watch'),
    Lease: definition('Lease'),
    Maintenance: definition('Maintenance'),
  };
}
