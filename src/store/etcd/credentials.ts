// SPDX-License-Identifier: Apache-2.0
//
// What a process shows the store, out of files. Those with secrets must be nobody else's to open.

import { readFile } from 'node:fs/promises';
import { PrivateFileError, readPrivateFile } from '../../env/private-file.js';
import { BasaltError } from '../../model/errors.js';
import type { StoreUser } from './auth-token.js';
import type { StoreCertificates } from './connection.js';

/** Paths; null: none. */
export interface StoreFiles {
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
  readonly username: string | null;
  readonly passwordFile: string | null;
}

/** @throws INVALID_ARGUMENT naming the field and the file, never what is in it */
export async function readStoreFiles(
  files: StoreFiles,
): Promise<{ credentials?: StoreCertificates; user: StoreUser | null }> {
  const { ca, cert, key, username, passwordFile } = files;
  const user =
    username === null || passwordFile === null
      ? null
      : { username, password: (await secret(passwordFile, 'store.passwordFile')).replace(/\r?\n$/, '') };
  if (ca === null) return { user };
  const pair =
    cert === null || key === null
      ? {}
      : { certChain: await plain(cert, 'store.cert'), privateKey: Buffer.from(await secret(key, 'store.key')) };
  return { credentials: { rootCertificate: await plain(ca, 'store.ca'), ...pair }, user };
}

async function plain(path: string, field: string): Promise<Buffer> {
  return readFile(path).catch((cause: NodeJS.ErrnoException) => {
    throw unreadable(field, path, `cannot be opened (${cause.code ?? String(cause)})`, cause);
  });
}

async function secret(path: string, field: string): Promise<string> {
  return readPrivateFile(path).catch((cause: unknown) => {
    throw unreadable(field, path, cause instanceof PrivateFileError ? cause.problem : String(cause), cause);
  });
}

function unreadable(field: string, path: string, problem: string, cause: unknown): BasaltError {
  return new BasaltError('INVALID_ARGUMENT', { field, problem: `${path} ${problem}` }, { cause });
}
