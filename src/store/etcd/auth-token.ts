// SPDX-License-Identifier: Apache-2.0
//
// What a user of the store is known by on each call: a token that the store gives out for name and password. It is
// asked for when it is needed first, and again when the store refuses it.
//
// Invariants:  - one asks at a time, whoever needs it
//              - one that was refused is not used again; a newer one is not thrown away for an older one's refusal

import type { CallFailure } from './failures.js';

export interface StoreUser {
  readonly username: string;
  readonly password: string;
}

/** Rejects with what asking failed with. */
export type AskForToken = (user: StoreUser) => Promise<string>;

export class AuthToken {
  readonly #user: StoreUser;
  #token: string | null = null;
  #asking: Promise<string> | null = null;

  constructor(user: StoreUser) {
    this.#user = user;
  }

  async get(ask: AskForToken): Promise<string> {
    if (this.#token !== null) return this.#token;
    this.#asking ??= ask(this.#user).finally(() => {
      this.#asking = null;
    });
    this.#token = await this.#asking;
    return this.#token;
  }

  /** `token`: what was refused; null: whichever there is. */
  forget(token: string | null): void {
    if (token === null || token === this.#token) this.#token = null;
  }
}

/** Said of a token that has run out, or is of an older state of the users: the request was not looked at. */
const refusedTexts = ['invalid auth token', 'revision of auth store is old'];

export function isTokenRefused(failure: Pick<CallFailure, 'details'>): boolean {
  return refusedTexts.some((text) => failure.details.includes(text));
}

/** The same of what a watch or another stream was ended with; some servers call an old token "permission denied" there. */
export function isStreamRefused(reason: string): boolean {
  return isTokenRefused({ details: reason }) || reason.includes('permission denied');
}
