// SPDX-License-Identifier: Apache-2.0
//
// Serves a store directory until killed: embedded-server.ts <directory> <port>. For tests.

import { startEmbeddedStore } from '../embedded/server.js';

const [directory, port] = process.argv.slice(2);
const store = await startEmbeddedStore({ directory: directory!, host: '127.0.0.1', port: Number(port) });
console.log(store.endpoint);
