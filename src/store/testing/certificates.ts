// SPDX-License-Identifier: Apache-2.0
//
// Certificates for tests, made by the openssl program in a folder: an authority, and what it signs.

import { execFile } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Certificate {
  /** Paths of PEM files. */
  readonly cert: string;
  readonly key: string;
}

/** Signs for servers and for clients; valid for a day. */
export class TestAuthority {
  readonly ca: string;
  readonly #folder: string;
  readonly #name: string;

  private constructor(folder: string, name: string) {
    this.#folder = folder;
    this.#name = name;
    this.ca = join(folder, `${name}.crt`);
  }

  static async create(folder: string, name: string): Promise<TestAuthority> {
    const authority = new TestAuthority(folder, name);
    const key = join(folder, `${name}.key`);
    const made = ['-x509', '-days', '1', '-subj', `/CN=${name}`, '-keyout', key, '-out', authority.ca];
    await openssl('req', ...newKey, ...made);
    return authority;
  }

  /** `address`: of the server. */
  async sign(commonName: string, address = '127.0.0.1'): Promise<Certificate> {
    const at = (ending: string): string => join(this.#folder, `${this.#name}-${commonName}.${ending}`);
    await openssl('req', ...newKey, '-subj', `/CN=${commonName}`, '-keyout', at('key'), '-out', at('csr'));
    chmodSync(at('key'), 0o600);
    writeFileSync(at('ext'), `subjectAltName=IP:${address}\nextendedKeyUsage=serverAuth,clientAuth\n`);
    const by = ['-CA', this.ca, '-CAkey', join(this.#folder, `${this.#name}.key`), '-CAcreateserial', '-days', '1'];
    await openssl('x509', '-req', '-in', at('csr'), ...by, '-extfile', at('ext'), '-out', at('crt'));
    return { cert: at('crt'), key: at('key') };
  }
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

async function openssl(...args: string[]): Promise<void> {
  await run('openssl', args).catch((cause: unknown) => {
    throw new Error('openssl does not run: install the package openssl (apt-get install openssl)', { cause });
  });
}
