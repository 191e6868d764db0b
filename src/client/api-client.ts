// SPDX-License-Identifier: Apache-2.0
//
// The REST API from a program: typed calls, errors as BasaltError with the server's code.

import type {
  AttachRequest,
  ChangePoolRequest,
  CloneRequest,
  ClusterKeyView,
  DiskView,
  DrainPlanView,
  ErrorView,
  HostCreateRequest,
  HostKeysRequest,
  HostView,
  MoveReplicaRequest,
  NodeView,
  PoolCreateRequest,
  PoolPlanRequest,
  PoolPlanView,
  PoolView,
  ScrubVolumeRequest,
  SnapshotGroupView,
  SnapshotView,
  StatusView,
  TokenCreated,
  TokenCreateRequest,
  TokenView,
  VolumeCreateRequest,
  VolumeResizeRequest,
  VolumeView,
} from '../model/api.js';
import { isLoopback } from '../model/config.js';
import { BasaltError, type ErrorCode, type ErrorFields, errorTable } from '../model/errors.js';
import type { CordonKind, JobView } from '../model/jobs.js';
import { parseToken } from '../model/tokens.js';
import { type HttpAnswer, httpsRequest } from './https-request.js';

export interface ApiClientOptions {
  /** `http://127.0.0.1:7420`, or without the scheme; `https://` for what is not on this machine. */
  readonly endpoint: string;
  /** Shown with every request. @default none */
  readonly token?: string | null;
  /** Whose certificates (PEM) a server at `https://` may show. @default those that the machine trusts */
  readonly ca?: string | null;
  /** @default 10_000 */
  readonly timeoutMs?: number;
}

const timeoutMsDefault = 10_000;

export class ApiClient {
  readonly endpoint: string;
  readonly #timeoutMs: number;
  readonly #token: string | null;
  readonly #ca: string | null;

  constructor(options: ApiClientOptions) {
    const named = options.endpoint.includes('://') ? options.endpoint : `http://${options.endpoint}`;
    if (!URL.canParse(named)) {
      throw new BasaltError('INVALID_ARGUMENT', {
        field: 'api',
        problem: 'must be <address>:<port>, such as 127.0.0.1:7420',
      });
    }
    this.endpoint = named.replace(/\/$/, '');
    this.#timeoutMs = options.timeoutMs ?? timeoutMsDefault;
    this.#token = options.token ?? null;
    this.#ca = options.ca ?? null;
    const { protocol, hostname } = new URL(named);
    if (this.#token === null) return;
    if (parseToken(this.#token) === null)
      throw new BasaltError('INVALID_ARGUMENT', { field: 'token', problem: 'is no API token (basalt1/<name>/…)' });
    if (protocol !== 'https:' && !isLoopback(hostname.replace(/^\[|\]$/g, '')))
      throw new BasaltError('INVALID_ARGUMENT', {
        field: 'api',
        problem: 'must begin with https:// for a server elsewhere: anybody on the way could read the token',
      });
  }

  status(): Promise<StatusView> {
    return this.#call('GET', '/v1/status');
  }

  health(): Promise<{ ok: boolean; version: string }> {
    return this.#call('GET', '/v1/health');
  }

  nodes(): Promise<NodeView[]> {
    return this.#call('GET', '/v1/nodes');
  }

  disks(): Promise<DiskView[]> {
    return this.#call('GET', '/v1/disks');
  }

  pools(): Promise<PoolView[]> {
    return this.#call('GET', '/v1/pools');
  }

  pool(name: string): Promise<PoolView> {
    return this.#call('GET', `/v1/pools/${encodeURIComponent(name)}`);
  }

  createPool(request: PoolCreateRequest): Promise<PoolView> {
    return this.#call('POST', '/v1/pools', request);
  }

  planPool(name: string, request: PoolPlanRequest): Promise<PoolPlanView> {
    return this.#call('POST', `/v1/pools/${encodeURIComponent(name)}/plan`, request);
  }

  async deletePool(name: string): Promise<void> {
    await this.#call('DELETE', `/v1/pools/${encodeURIComponent(name)}`);
  }

  clusterKeys(): Promise<ClusterKeyView> {
    return this.#call('GET', '/v1/keys');
  }

  rotateClusterKey(): Promise<{ keyId: string; rewrapped: number }> {
    return this.#call('POST', '/v1/keys/rotate');
  }

  pruneClusterKeys(): Promise<{ removed: string[] }> {
    return this.#call('POST', '/v1/keys/prune');
  }

  hosts(): Promise<HostView[]> {
    return this.#call('GET', '/v1/hosts');
  }

  host(nqn: string): Promise<HostView> {
    return this.#call('GET', `/v1/hosts/${encodeURIComponent(nqn)}`);
  }

  /** @throws HOST_KEYS_DIFFER when it has others already */
  createHost(request: HostCreateRequest): Promise<HostView> {
    return this.#call('POST', '/v1/hosts', request);
  }

  setHostKeys(nqn: string, request: HostKeysRequest): Promise<HostView> {
    return this.#call('POST', `/v1/hosts/${encodeURIComponent(nqn)}/keys`, request);
  }

  async deleteHost(nqn: string): Promise<void> {
    await this.#call('DELETE', `/v1/hosts/${encodeURIComponent(nqn)}`);
  }

  tokens(): Promise<TokenView[]> {
    return this.#call('GET', '/v1/tokens');
  }

  /** Nobody can be told the token's text again. */
  createToken(request: TokenCreateRequest): Promise<TokenCreated> {
    return this.#call('POST', '/v1/tokens', request);
  }

  async revokeToken(name: string): Promise<void> {
    await this.#call('DELETE', `/v1/tokens/${encodeURIComponent(name)}`);
  }

  volumes(): Promise<VolumeView[]> {
    return this.#call('GET', '/v1/volumes');
  }

  volume(name: string): Promise<VolumeView> {
    return this.#call('GET', `/v1/volumes/${encodeURIComponent(name)}`);
  }

  createVolume(request: VolumeCreateRequest): Promise<VolumeView> {
    return this.#call('POST', '/v1/volumes', request);
  }

  /** Answers when the wish is written down: `growth` of the volume shows how it goes on. */
  resizeVolume(name: string, request: VolumeResizeRequest): Promise<VolumeView> {
    return this.#call('POST', `/v1/volumes/${encodeURIComponent(name)}/resize`, request);
  }

  async deleteVolume(name: string, options: { force?: boolean } = {}): Promise<void> {
    const query = options.force === true ? '?force=true' : '';
    await this.#call('DELETE', `/v1/volumes/${encodeURIComponent(name)}${query}`);
  }

  /** Answers when the wish is written down: its `state` shows when it is made. */
  createSnapshot(volume: string, name: string): Promise<SnapshotView> {
    return this.#call('POST', `/v1/volumes/${encodeURIComponent(volume)}/snapshots`, { name });
  }

  snapshots(volume: string): Promise<SnapshotView[]> {
    return this.#call('GET', `/v1/volumes/${encodeURIComponent(volume)}/snapshots`);
  }

  snapshot(volume: string, name: string): Promise<SnapshotView> {
    return this.#call('GET', snapshotPath(volume, name));
  }

  async deleteSnapshot(volume: string, name: string): Promise<void> {
    await this.#call('DELETE', snapshotPath(volume, name));
  }

  /** Asks for snapshots of several volumes of one instant, each called `name`. */
  createSnapshotGroup(name: string, volumes: readonly string[]): Promise<SnapshotGroupView> {
    return this.#call('POST', '/v1/snapshot-groups', { name, volumes });
  }

  snapshotGroups(): Promise<SnapshotGroupView[]> {
    return this.#call('GET', '/v1/snapshot-groups');
  }

  snapshotGroup(name: string): Promise<SnapshotGroupView> {
    return this.#call('GET', `/v1/snapshot-groups/${encodeURIComponent(name)}`);
  }

  async deleteSnapshotGroup(name: string): Promise<void> {
    await this.#call('DELETE', `/v1/snapshot-groups/${encodeURIComponent(name)}`);
  }

  cloneSnapshot(volume: string, name: string, request: CloneRequest): Promise<VolumeView> {
    return this.#call('POST', `${snapshotPath(volume, name)}/clone`, request);
  }

  rollBack(volume: string, name: string): Promise<JobView> {
    return this.#call('POST', `${snapshotPath(volume, name)}/rollback`);
  }

  attach(name: string, request: AttachRequest): Promise<VolumeView> {
    return this.#call('POST', `/v1/volumes/${encodeURIComponent(name)}/attach`, request);
  }

  detach(name: string, request: AttachRequest): Promise<VolumeView> {
    return this.#call('POST', `/v1/volumes/${encodeURIComponent(name)}/detach`, request);
  }

  /** Answers when the wish is written down: the job says when the volume is there. */
  moveController(name: string, to: string): Promise<JobView> {
    return this.#call('POST', `/v1/volumes/${encodeURIComponent(name)}/move-controller`, { to });
  }

  /** Answers when the wish is written down, as above. */
  moveReplica(name: string, request: MoveReplicaRequest): Promise<JobView> {
    return this.#call('POST', `/v1/volumes/${encodeURIComponent(name)}/move-replica`, request);
  }

  /** Answers when the wish is written down, as above. */
  changePool(name: string, request: ChangePoolRequest): Promise<JobView> {
    return this.#call('POST', `/v1/volumes/${encodeURIComponent(name)}/change-pool`, request);
  }

  /** Answers when the wish is written down, as above. */
  scrubVolume(name: string, request: ScrubVolumeRequest = {}): Promise<JobView> {
    return this.#call('POST', `/v1/volumes/${encodeURIComponent(name)}/scrub`, request);
  }

  jobs(): Promise<JobView[]> {
    return this.#call('GET', '/v1/jobs');
  }

  job(id: string): Promise<JobView> {
    return this.#call('GET', `/v1/jobs/${encodeURIComponent(id)}`);
  }

  cancelJob(id: string): Promise<JobView> {
    return this.#call('POST', `/v1/jobs/${encodeURIComponent(id)}/cancel`);
  }

  cordon(kind: CordonKind, name: string): Promise<{ kind: CordonKind; name: string }> {
    return this.#call('POST', `/v1/${kind}s/${encodeURIComponent(name)}/cordon`);
  }

  uncordon(kind: CordonKind, name: string): Promise<{ kind: CordonKind; name: string }> {
    return this.#call('POST', `/v1/${kind}s/${encodeURIComponent(name)}/uncordon`);
  }

  drain(kind: CordonKind, name: string): Promise<JobView> {
    return this.#call('POST', `/v1/${kind}s/${encodeURIComponent(name)}/drain`);
  }

  drainPlan(kind: CordonKind, name: string): Promise<DrainPlanView> {
    return this.#call('POST', `/v1/${kind}s/${encodeURIComponent(name)}/drain-plan`);
  }

  async removeDisk(name: string): Promise<void> {
    await this.#call('DELETE', `/v1/disks/${encodeURIComponent(name)}`);
  }

  async #call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const { status, text } = await this.#ask(method, path, body);
    const value = parse(text);
    if (status >= 200 && status < 300) return value as T;
    throw this.#refusal(status, value);
  }

  async #ask(method: string, path: string, body: unknown): Promise<HttpAnswer> {
    const signal = AbortSignal.timeout(this.#timeoutMs);
    const headers: Record<string, string> = {};
    if (this.#token !== null) headers['authorization'] = `Bearer ${this.#token}`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    const asked = { method, headers, signal, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const url = `${this.endpoint}${path}`;
    try {
      if (url.startsWith('https:'))
        return await httpsRequest(url, { ...asked, ...(this.#ca === null ? {} : { ca: this.#ca }) });
      const response = await fetch(url, asked);
      return { status: response.status, text: await response.text() };
    } catch (cause) {
      const timedOut = cause instanceof Error && cause.name === 'TimeoutError';
      if (timedOut)
        throw new BasaltError(
          'DEADLINE_EXCEEDED',
          { operation: `${method} ${path}`, timeoutMs: this.#timeoutMs },
          { cause },
        );
      const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
      const detail =
        inner instanceof Error ? inner.message || String((inner as NodeJS.ErrnoException).code) : String(inner);
      throw new BasaltError('API_UNREACHABLE', { endpoint: this.endpoint, detail }, { cause });
    }
  }

  #refusal(status: number, value: unknown): BasaltError {
    const view = value as Partial<ErrorView> | null;
    const code = view?.code;
    if (code !== undefined && Object.hasOwn(errorTable, code)) {
      return new BasaltError(code as ErrorCode, (view?.fields ?? {}) as ErrorFields);
    }
    return new BasaltError('INTERNAL', { detail: `${this.endpoint} answered with status ${status}` });
  }
}

function snapshotPath(volume: string, name: string): string {
  return `/v1/volumes/${encodeURIComponent(volume)}/snapshots/${encodeURIComponent(name)}`;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
