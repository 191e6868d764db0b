// SPDX-License-Identifier: Apache-2.0
//
// The fake's keyring_* methods. It reads no files: what a key of a file is, its path stands for.

import type { Handler } from './methods-bdev.js';
import { Refused } from './refusal.js';

const removeKey: Handler = (state, fields) => {
  const name = fields.string('name');
  fields.end();
  if (!state.keys.delete(name)) throw new Refused('notFound', `key ${name} does not exist`);
  return true;
};

export const keyringMethods: Record<string, Handler> = {
  keyring_file_add_key: (state, fields) => {
    const name = fields.string('name');
    const path = fields.string('path');
    if (!path.startsWith('/')) fields.refuse('path', 'must be an absolute path');
    fields.end();
    if (state.keys.has(name)) throw new Refused('exists', `key ${name} exists`);
    state.keys.set(name, { path, secret: path });
    return true;
  },
  basalt_keyring_add_key: (state, fields) => {
    const name = fields.string('name');
    const secret = fields.secret('secret');
    fields.end();
    if (state.keys.has(name)) throw new Refused('exists', `key ${name} exists`);
    state.keys.set(name, { path: '', secret });
    return true;
  },
  keyring_file_remove_key: removeKey,
  basalt_keyring_remove_key: removeKey,
  keyring_get_keys: (state, fields) => {
    fields.end();
    return [...state.keys].sort(([one], [other]) => (one < other ? -1 : 1)).map(([name, { path }]) => ({ name, path }));
  },
};
