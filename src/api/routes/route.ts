// SPDX-License-Identifier: Apache-2.0
//
// A route as data: what serves it, and what the OpenAPI document says about it.

import type { TSchema } from 'typebox';
import type { Clock } from '../../env/clock.js';
import type { Random } from '../../env/random.js';
import type { ApiRole } from '../../model/tokens.js';
import type { PgPlanner } from '../../placement/planner.js';
import type { Store } from '../../store/store.js';
import type { Line } from '../line.js';
import type { KeyStore } from '../wrapping-key.js';

export interface ApiDeps {
  readonly store: Store;
  readonly random: Random;
  /** @default the machine's */
  readonly clock?: Clock;
  readonly planner: PgPlanner;
  /** @default the server's own */
  readonly line?: Line;
  /** The machine's key file. @default none: encrypted volumes cannot be made here */
  readonly keys?: KeyStore | null;
  readonly version: string;
  /** What a program that embeds a controller connects to. */
  readonly storeEndpoints: readonly string[];
}

export interface RouteRequest {
  readonly params: Readonly<Record<string, string>>;
  readonly body: unknown;
  /** Those of the route's flags that the query names as `true`. */
  readonly flags: ReadonlySet<string>;
}

export interface Reply {
  readonly status: number;
  readonly body: unknown;
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** With `:name` where a parameter stands. */
  readonly path: string;
  readonly summary: string;
  readonly body: TSchema | null;
  /** Query parameters that are true or false. */
  readonly flags?: readonly string[];
  readonly response: TSchema;
  readonly status: number;
  /** Whose tokens may ask for it. @default `viewer` for GET, `admin` for everything else */
  readonly role?: ApiRole;
  /** The answer holds a secret: it is not kept for requests that are repeated under one key. */
  readonly secretAnswer?: true;
  readonly run: (deps: ApiDeps, request: RouteRequest) => Promise<Reply>;
}

export function roleOf(route: Pick<Route, 'method' | 'role'>): ApiRole {
  return route.role ?? (route.method === 'GET' ? 'viewer' : 'admin');
}

export function ok(body: unknown): Reply {
  return { status: 200, body };
}
