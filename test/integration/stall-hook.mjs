// SPDX-License-Identifier: Apache-2.0
// Loaded into a daemon with --import: SIGUSR2 blocks its event loop for ten seconds. Native threads go on.

process.on('SIGUSR2', () => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000);
});
