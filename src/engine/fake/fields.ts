// SPDX-License-Identifier: Apache-2.0
//
// Strict reading of parameters, as the native engine does it: unknown, missing and wrong fields are refused with -32602
// and the field's path.

import { Refused } from './refusal.js';

type Json = Record<string, unknown>;

export class Fields {
  readonly #value: Json;
  readonly #path: string;
  readonly #known = new Set<string>();

  constructor(value: unknown, path = 'params') {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new Refused('invalidParams', `${path}: must be an object of named parameters`);
    this.#value = value as Json;
    this.#path = path;
  }

  has(name: string): boolean {
    this.#known.add(name);
    return this.#value[name] !== undefined;
  }

  isNull(name: string): boolean {
    return this.has(name) && this.#value[name] === null;
  }

  string(name: string): string {
    const value = this.#need(name);
    if (typeof value !== 'string' || value === '' || value.length > 1024)
      this.refuse(name, `must be a string of 1 to 1024 printable bytes, is ${JSON.stringify(value)}`);
    return value as string;
  }

  /** The same, but no error shows what was given. */
  secret(name: string): string {
    const value = this.#need(name);
    if (typeof value !== 'string' || value === '' || value.length > 1024)
      this.refuse(name, 'must be a string of 1 to 1024 bytes');
    return value as string;
  }

  stringOr(name: string, otherwise: string): string {
    return this.has(name) ? this.string(name) : otherwise;
  }

  /** Bytes, as hexadecimal digits. */
  hex(name: string, bytesMax: number): string {
    const value = this.#need(name);
    if (typeof value !== 'string' || !/^([0-9a-fA-F]{2})+$/.test(value) || value.length > 2 * bytesMax)
      this.refuse(name, `must be 1 to ${bytesMax} bytes, as hexadecimal digits`);
    return value.toLowerCase();
  }

  natural(name: string, min = 0, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.#need(name);
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max)
      this.refuse(name, `must be an integer from ${min} to ${max}, is ${JSON.stringify(value)}`);
    return value as number;
  }

  naturalOr(name: string, otherwise: number, min = 0, max = Number.MAX_SAFE_INTEGER): number {
    return this.has(name) ? this.natural(name, min, max) : otherwise;
  }

  booleanOr(name: string, otherwise: boolean): boolean {
    return this.has(name) ? this.boolean(name) : otherwise;
  }

  boolean(name: string): boolean {
    const value = this.#need(name);
    if (typeof value !== 'boolean') this.refuse(name, `must be true or false, is ${JSON.stringify(value)}`);
    return value as boolean;
  }

  choice<T extends string>(name: string, choices: readonly T[]): T {
    const value = this.#need(name);
    const found = choices.find((choice) => choice === value);
    if (found === undefined) this.refuse(name, `must be one of ${choices.join(', ')}, is ${JSON.stringify(value)}`);
    return found as T;
  }

  uuidOr(name: string, otherwise: () => string): string {
    if (!this.has(name)) return otherwise();
    const value = this.string(name).toLowerCase();
    if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value))
      this.refuse(name, `must be a UUID such as 6fbe5ee2-8d0a-4c5e-9f0e-0c3b7a5b7e11, is ${JSON.stringify(value)}`);
    return value;
  }

  epoch(name: string): bigint {
    const value = this.#need(name);
    const text = typeof value === 'bigint' || Number.isSafeInteger(value) ? String(value) : value;
    if (typeof text !== 'string' || !/^[0-9]{1,20}$/.test(text) || BigInt(text) < 1n || BigInt(text) >= 1n << 64n)
      this.refuse(name, 'must be a number or a decimal string from 1 to 18446744073709551615');
    return BigInt(text as string);
  }

  strings(name: string, min: number, max: number): string[] {
    const items = this.array(name, min, max);
    items.forEach((item, index) => {
      if (typeof item !== 'string' || item === '') this.refuse(`${name}[${index}]`, 'must be a string');
    });
    return items as string[];
  }

  array(name: string, min: number, max: number): unknown[] {
    const value = this.#need(name);
    if (!Array.isArray(value) || value.length < min || value.length > max)
      this.refuse(name, `must be an array of ${min} to ${max} entries`);
    return value as unknown[];
  }

  object(name: string): Fields {
    return new Fields(this.#need(name), `${this.#path}.${name}`);
  }

  refuse(name: string, problem: string): never {
    throw new Refused('invalidParams', `${this.#path}.${name}: ${problem}`);
  }

  /** After every known field was asked for. */
  end(): void {
    for (const name of Object.keys(this.#value))
      if (!this.#known.has(name) && this.#value[name] !== undefined)
        this.refuse(name, 'is not a parameter of this method');
  }

  #need(name: string): unknown {
    if (!this.has(name)) this.refuse(name, 'is missing');
    return this.#value[name];
  }
}
