// SPDX-License-Identifier: Apache-2.0
// Goal: each tidy rule sees the mistake it is there for, and stays silent on good code.
// Method: trees in memory with one mistake each.

import { describe, expect, it } from 'vitest';
import { bannedCalls } from './checks/banned.js';
import { docLinks, homePaths, licenceHeaders, nothingStray } from './checks/files.js';
import { nativeLayers, osHeaders, srcLayers } from './checks/layers.js';
import { lengthReport } from './checks/lengths.js';
import { dependencyLicences, isPermitted } from './checks/licences.js';
import { type Check, codeOnly, memoryTree } from './tree.js';

async function places(check: Check, files: Record<string, string>): Promise<string[]> {
  return (await check.run(memoryTree(files))).map((finding) => `${finding.path}:${finding.line}`);
}

const headers = {
  'native/base/result.h': '',
  'native/bdev/bdev.h': '',
  'native/bdev/malloc/malloc.h': '',
  'native/env/clock.h': '',
  'native/nvmf/pdu/pdu.h': '',
};

describe('the native layer table', () => {
  it('refuses an include from a lower layer upwards', async () => {
    const files = { ...headers, 'native/base/a.cc': '#include "base/result.h"\n#include "env/clock.h"\n' };
    expect(await places(nativeLayers, files)).toEqual(['native/base/a.cc:2']);
  });

  it('refuses a bdev type that includes another, and allows the interface', async () => {
    const files = {
      ...headers,
      'native/bdev/file/file.cc': '#include "bdev/bdev.h"\n#include "bdev/malloc/malloc.h"\n',
    };
    expect(await places(nativeLayers, files)).toEqual(['native/bdev/file/file.cc:2']);
  });

  it('lets tests include anything', async () => {
    const files = { ...headers, 'native/bdev/file/file_test.cc': '#include "bdev/malloc/malloc.h"\n' };
    expect(await places(nativeLayers, files)).toEqual([]);
  });

  it('lets a program on top be included where a row names it, and nowhere else', async () => {
    const text = '#include "check/history.h"\n';
    const files = {
      ...headers,
      'native/check/history.h': '',
      'native/recorder/a.cc': text,
      'native/engine/a.cc': text,
      'native/env/a.cc': text,
    };
    expect(await places(nativeLayers, files)).toEqual(['native/engine/a.cc:1', 'native/env/a.cc:1']);
  });

  it('asks for a row when a folder is new', async () => {
    const files = { ...headers, 'native/brandnew/a.cc': '#include "base/result.h"\n' };
    const findings = await nativeLayers.run(memoryTree(files));
    expect(findings.map((finding) => finding.message)).toEqual([
      expect.stringContaining('has no row in the layer table'),
    ]);
  });

  it('refuses paths relative to the including file', async () => {
    const files = { ...headers, 'native/bdev/a.cc': '#include "bdev.h"\n' };
    expect(await places(nativeLayers, files)).toEqual(['native/bdev/a.cc:1']);
  });

  it('keeps operating system headers in env/linux', async () => {
    const text = '#include <sys/socket.h>\n#include <cstdint>\n#include <liburing.h>\n';
    const files = { 'native/bdev/a.cc': text, 'native/env/linux/a.cc': text };
    expect(await places(osHeaders, files)).toEqual(['native/bdev/a.cc:1', 'native/bdev/a.cc:3']);
  });
});

describe('the src layer table', () => {
  it('refuses an import from model into store, in any form', async () => {
    const files = {
      'src/model/a.ts': "import {\n  type Store,\n} from '../store/store.js';\nexport * from '../store/b.js';\n",
      'src/model/b.ts': "const late = await import('../store/store.js');\n",
      'src/store/c.ts': "import { volume } from '../model/volume.js';\n",
    };
    expect(await places(srcLayers, files)).toEqual(['src/model/a.ts:3', 'src/model/a.ts:4', 'src/model/b.ts:1']);
  });

  it('refuses shipped code that needs test code', async () => {
    const files = { 'src/bin/a.ts': "import { x } from '../../test/x.js';\n" };
    expect(await places(srcLayers, files)).toEqual(['src/bin/a.ts:1']);
  });
});

describe('banned calls', () => {
  it('sees clocks, randomness, sleeps and exceptions in native code', async () => {
    const text = [
      'auto a = std::chrono::steady_clock::now();',
      'int b = rand();',
      'clock_gettime(CLOCK_MONOTONIC, &t);',
      'throw b;',
      'std::this_thread::sleep_for(a);',
    ].join('\n');
    const found = await places(bannedCalls, { 'native/bdev/a.cc': text });
    expect(found.sort()).toEqual([1, 2, 3, 4, 5].map((line) => `native/bdev/a.cc:${line}`));
  });

  it('sees Date.now, Math.random and timers in shipped TypeScript only', async () => {
    const text = 'Date.now();\nMath.random();\nsetTimeout(f, 1);\nclock.setTimeout(f, 1);\n';
    const files = { 'src/api/a.ts': text, 'src/env/a.ts': text, 'src/api/a.test.ts': text };
    expect((await places(bannedCalls, files)).sort()).toEqual(['src/api/a.ts:1', 'src/api/a.ts:2', 'src/api/a.ts:3']);
  });

  it('ignores comments and strings', async () => {
    const text = "// Date.now()\nconst a = 'Date.now()';\n/* rand()\n Math.random() */\n";
    expect(await places(bannedCalls, { 'src/api/a.ts': text })).toEqual([]);
    expect(codeOnly(text).split('\n')).toHaveLength(text.split('\n').length);
  });
});

describe('rules about files', () => {
  it('finds a missing licence line', async () => {
    const good = '// SPDX-License-Identifier: Apache-2.0\n';
    expect(await places(licenceHeaders, { 'src/a.ts': 'x\n', 'src/b.ts': good })).toEqual(['src/a.ts:1']);
  });

  it('finds files in no known place and empty ones', async () => {
    const files = { 'notes.txt': 'x', 'src/a.ts': '', 'src/b.ts': 'x', 'native/core.1234': 'x' };
    expect(await places(nothingStray, files)).toEqual(['native/core.1234:0', 'notes.txt:0', 'src/a.ts:0']);
  });

  it('finds dead links and dead anchors', async () => {
    const files = {
      'README.md': '[a](docs/a.md) [b](docs/b.md)\n[c](docs/a.md#the-way-in) [d](docs/a.md#nowhere)\n',
      'docs/a.md': '# The way in\n[up](../README.md) [web](https://example.org)\n',
    };
    expect(await places(docLinks, files)).toEqual(['README.md:1', 'README.md:2']);
  });

  it('finds paths of one machine', async () => {
    const text = 'a\n/home/me/basalt\n$root/work/here\n';
    expect(await places(homePaths, { 'docs/a.md': text })).toEqual(['docs/a.md:2']);
  });

  it('reports a function that leaves the screen', () => {
    const body = '  f();\n'.repeat(100);
    const report = lengthReport(memoryTree({ 'src/a.ts': `function long() {\n${body}}\n` }));
    expect(report).toMatchObject([{ path: 'src/a.ts', line: 1, message: 'function of 102 lines' }]);
  });
});

describe('licences', () => {
  it('accepts permissive ones, alone and in expressions', () => {
    expect(['MIT', '(MIT OR GPL-3.0)', 'MIT AND ISC'].map(isPermitted)).toEqual([true, true, true]);
    expect(['GPL-3.0', 'MIT AND GPL-3.0', 'none stated'].map(isPermitted)).toEqual([false, false, false]);
  });

  it('looks at what users install, not at development tools', async () => {
    const packages = {
      '': { license: 'Apache-2.0' },
      'node_modules/a': { license: 'GPL-3.0' },
      'node_modules/b': { license: 'MPL-2.0', dev: true },
      'node_modules/c': { license: 'MIT' },
    };
    const findings = await dependencyLicences.run(memoryTree({ 'package-lock.json': JSON.stringify({ packages }) }));
    expect(findings.map((finding) => finding.message)).toEqual([expect.stringContaining('a has the licence GPL-3.0')]);
  });
});
