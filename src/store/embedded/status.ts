// SPDX-License-Identifier: Apache-2.0
//
// The refusals of the embedded server: the gRPC codes and texts that etcd's clients know.

import { status } from '@grpc/grpc-js';

/** An expected refusal; it becomes the gRPC status of the call. */
export class EtcdStatus extends Error {
  readonly code: status;

  constructor(code: status, message: string) {
    super(message);
    this.name = 'EtcdStatus';
    this.code = code;
  }
}

function refusal(code: status, text: string): () => EtcdStatus {
  return () => new EtcdStatus(code, text);
}

export const refusals = Object.freeze({
  emptyKey: refusal(status.INVALID_ARGUMENT, 'etcdserver: key is not provided'),
  keyNotFound: refusal(status.INVALID_ARGUMENT, 'etcdserver: key not found'),
  valueProvided: refusal(status.INVALID_ARGUMENT, 'etcdserver: value is provided'),
  leaseProvided: refusal(status.INVALID_ARGUMENT, 'etcdserver: lease is provided'),
  tooManyOps: refusal(status.INVALID_ARGUMENT, 'etcdserver: too many operations in txn request'),
  duplicateKey: refusal(status.INVALID_ARGUMENT, 'etcdserver: duplicate key given in txn request'),
  invalidSort: refusal(status.INVALID_ARGUMENT, 'etcdserver: invalid sort option'),
  requestTooLarge: refusal(status.INVALID_ARGUMENT, 'etcdserver: request is too large'),
  compacted: refusal(status.OUT_OF_RANGE, 'etcdserver: mvcc: required revision has been compacted'),
  futureRevision: refusal(status.OUT_OF_RANGE, 'etcdserver: mvcc: required revision is a future revision'),
  noSpace: refusal(status.RESOURCE_EXHAUSTED, 'etcdserver: mvcc: database space exceeded'),
  leaseNotFound: refusal(status.NOT_FOUND, 'etcdserver: requested lease not found'),
  leaseExists: refusal(status.FAILED_PRECONDITION, 'etcdserver: lease already exists'),
  leaseTtlTooLarge: refusal(status.OUT_OF_RANGE, 'etcdserver: too large lease TTL'),
  tooManyRequests: refusal(status.RESOURCE_EXHAUSTED, 'etcdserver: too many requests'),
  stopped: refusal(status.UNAVAILABLE, 'etcdserver: server stopped'),
  alarmUnsupported: refusal(status.UNIMPLEMENTED, 'etcdserver: alarms can only be listed'),
});
