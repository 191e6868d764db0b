// SPDX-License-Identifier: Apache-2.0
//
// Who may ask the API for what. Tokens live in the store, so every server knows them, and a revoked one ends everywhere with
// the next request. Where there are none yet, whoever reaches a loopback listener may do everything, as on a machine of
// one's own; from the first token on, every request needs one. Listeners beyond loopback always ask for one.
//
// Invariants:  - while there are tokens, one of them is an admin's and never expires: nobody is locked out by a clock or a slip
//              - a token that cannot be read counts as one that is there, and lets nobody in

import type { Clock } from '../env/clock.js';
import type { Random } from '../env/random.js';
import type { TokenCreated, TokenCreateRequest, TokenView } from '../model/api.js';
import type { ClusterState, Stored } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion } from '../model/objects.js';
import {
  type ApiRole,
  isExpired,
  isTokenSecret,
  mayDo,
  parseToken,
  type TokenObject,
  tokenDigest,
  tokenSecretBytes,
  tokenText,
} from '../model/tokens.js';
import type { Change, Condition, Store } from '../store/store.js';
import { attempt } from './attempt.js';
import { readState } from './read-state.js';

export interface TokenDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
}

/** Who asks; a null name: anybody, while there are no tokens. */
export interface Caller {
  readonly name: string | null;
  readonly role: ApiRole;
}

/** `anybody`: a request without a token will do while there are none. @throws UNAUTHENTICATED */
export async function callerOf(
  deps: Pick<TokenDeps, 'store' | 'clock'>,
  authorization: string | undefined,
  at: { anybody: boolean },
): Promise<Caller> {
  const { state } = await readState(deps.store);
  if (at.anybody && !hasTokens(state)) return { name: null, role: 'admin' };
  if (authorization === undefined) throw new BasaltError('UNAUTHENTICATED', { problem: 'this request names none' });
  const shown = parseToken(/^Bearer ([^\s]+)$/i.exec(authorization)?.[1] ?? '');
  const token = shown === null ? null : state.get('tokens', shown.name);
  // One answer for all of them: it does not tell which names there are.
  if (shown === null || !isTokenSecret(token, shown.secret) || token === null || isExpired(token, deps.clock.wallMs()))
    throw new BasaltError('UNAUTHENTICATED', { problem: 'this one is unknown, revoked or expired' });
  return { name: token.name, role: token.role };
}

/** @throws FORBIDDEN */
export function requireRole(caller: Caller, needed: ApiRole, operation: string): void {
  if (mayDo(caller.role, needed)) return;
  throw new BasaltError('FORBIDDEN', { name: caller.name, role: caller.role, needed, operation });
}

/** Its text is in this answer, and nowhere after that. @throws ALREADY_EXISTS */
export async function createToken(deps: TokenDeps, request: TokenCreateRequest): Promise<TokenCreated> {
  const secret = deps.random.bytes(tokenSecretBytes);
  const createdAtMs = Math.floor(deps.clock.wallMs());
  const token: TokenObject = {
    format: formatVersion,
    name: request.name,
    role: request.role,
    digest: tokenDigest(secret),
    createdAtMs,
    expiresAtMs: request.expiresInS === undefined ? null : createdAtMs + request.expiresInS * 1000,
  };
  const key = keys.token(token.name);
  await attempt<void>(deps.store, async ({ state }) => {
    if (state.get('tokens', token.name) !== null || state.unreadable.has(key))
      throw new BasaltError('ALREADY_EXISTS', { kind: 'token', name: token.name, field: 'name' });
    const guard = state.all('tokens').find(isLasting);
    if (guard === undefined && !isLasting(token))
      throw new BasaltError('INVALID_ARGUMENT', {
        field: token.role === 'admin' ? 'expiresInS' : 'role',
        problem: 'the first token must have the role admin and never expire: from then on nothing goes without one',
      });
    const put: Change = { kind: 'put', key, value: codecs.token.encode(token) };
    const kept = guard === undefined ? [] : [keptBeside(stored(state, guard.name))];
    return {
      txn: {
        conditions: [{ key, modRevision: 0 }, ...kept.map((entry) => entry.condition)],
        changes: [put, ...kept.map((entry) => entry.change)],
      },
      result: undefined,
    };
  });
  return { ...tokenView(token, createdAtMs), token: tokenText(token.name, secret) };
}

/** The last one may go: then nobody is asked for one on loopback. @throws NOT_FOUND, BUSY */
export function revokeToken(deps: Pick<TokenDeps, 'store'>, name: string): Promise<void> {
  return attempt<void>(deps.store, async ({ state }) => {
    const { key, revision } = stored(state, name);
    const others = state.all('tokens').filter((token) => token.name !== name);
    const guard = others.find(isLasting);
    if (guard === undefined && others.length > 0)
      throw new BasaltError('BUSY', {
        kind: 'token',
        name,
        detail:
          'it is the last one of an admin that does not expire; revoke the others first, or make another such one',
      });
    const kept = guard === undefined ? [] : [keptBeside(stored(state, guard.name))];
    return {
      txn: {
        conditions: [{ key, modRevision: revision }, ...kept.map((entry) => entry.condition)],
        changes: [{ kind: 'delete', key }, ...kept.map((entry) => entry.change)],
      },
      result: undefined,
    };
  });
}

export async function tokenViews(deps: Pick<TokenDeps, 'store' | 'clock'>): Promise<TokenView[]> {
  const { state } = await readState(deps.store);
  return state.all('tokens').map((token) => tokenView(token, deps.clock.wallMs()));
}

function tokenView(token: TokenObject, wallMs: number): TokenView {
  const { name, role, createdAtMs, expiresAtMs } = token;
  return { name, role, createdAtMs, expiresAtMs, expired: isExpired(token, wallMs) };
}

function hasTokens(state: ClusterState): boolean {
  return state.all('tokens').length > 0 || [...state.unreadable.keys()].some((key) => key.startsWith(keys.tokens));
}

/** What keeps the others from being locked out. */
function isLasting(token: TokenObject): boolean {
  return token.role === 'admin' && token.expiresAtMs === null;
}

function stored(state: ClusterState, name: string): Stored<TokenObject> {
  const found = state.stored('tokens', name);
  if (found === null) throw new BasaltError('NOT_FOUND', { kind: 'token', name });
  return found;
}

/** Written as it is: whoever revokes it meanwhile finds that out, and so does this request. */
function keptBeside(guard: Stored<TokenObject>): { condition: Condition; change: Change } {
  return {
    condition: { key: guard.key, modRevision: guard.revision },
    change: { kind: 'put', key: guard.key, value: codecs.token.encode(guard.value) },
  };
}
