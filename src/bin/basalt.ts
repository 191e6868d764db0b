#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
//
// The command `basalt`. Daemons are loaded only when they are asked for, so that `basalt status` starts at once.

import { readFile } from 'node:fs/promises';
import { runCli } from '../cli/program.js';
import { systemClock } from '../env/clock.js';
import { fillPrivateFile, readPrivateFile } from '../env/private-file.js';
import { guardMemory } from './guard-memory.js';
import { version } from './version.js';

guardMemory(process.env);

// A reader that went away is no reason to die in the middle of a line.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
}

process.exitCode = await runCli(
  {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    readFile: (path) => readFile(path, 'utf8'),
    readPrivateFile,
    fillPrivateFile,
    environment: process.env,
    now: () => systemClock.now(),
    sleep: (delayMs) => systemClock.sleep(delayMs),
    version: version(),
    launchers: {
      fsck: async (path, options) => (await import('./run-fsck.js')).runFsck(path, options),
      scrub: async (...choice) => (await import('./run-scrub.js')).runScrub(...choice),
      storeSurvey: async (...asked) => (await import('./run-store-rebuild.js')).runStoreSurvey(...asked),
      storeRebuild: async (...asked) => (await import('./run-store-rebuild.js')).runStoreRebuild(...asked),
      drawKey: async (...key) => (await import('./draw-key.js')).drawKey(...key),
      store: async (config, output) => (await import('./run-store.js')).runStore(config, output),
      api: async (config, output) => (await import('./run-api.js')).runApi(config, output),
      node: async (config, node, output) => (await import('./run-node.js')).runNode(config, node, output),
      engine: async (config, choice, output) => (await import('./run-engine.js')).runEngine(config, choice, output),
      up: async (config, path, output) => (await import('./run-up.js')).runUp(config, path, output),
    },
  },
  process.argv.slice(2),
);
