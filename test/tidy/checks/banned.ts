// SPDX-License-Identifier: Apache-2.0
// Calls that would escape the simulated world, or hide state, each with what to use instead.

import { type Check, codeOnly, type Finding, lineOf, type Tree } from '../tree.js';

interface Ban {
  pattern: RegExp;
  /** Paths that the rule looks at, and those among them that may. */
  where: RegExp;
  except: RegExp;
  instead: string;
}

const native = /^native\/.*\.(cc|h)$/;
const native_edge = /^native\/(env\/linux|engined|napi|testing)\/|_(bench|fuzz)\.cc$/;
const shipped = /^src\/.*\.ts$/;
const src_edge = /^src\/env\/|(\.test|\.bench|-contract|-testing|\/contract)\.ts$|\/testing\//;

const bans: Ban[] = [
  {
    pattern: /\b(?:system_clock|steady_clock|high_resolution_clock)::now\b/g,
    where: native,
    except: native_edge,
    instead: 'take the time from env::Clock, which the simulator drives',
  },
  {
    pattern: /(?<![\w.:>])(?:gettimeofday|clock_gettime|clock_nanosleep|nanosleep|usleep|time)\s*\((?!\s*\))/g,
    where: native,
    except: native_edge,
    instead: 'take the time from env::Clock, which the simulator drives; wait with a runtime timer',
  },
  {
    pattern: /(?<![\w.:>])(?:std::)?(?:rand|srand|srandom|rand_r|drand48|getrandom)\s*\(|\bstd::random_device\b/g,
    where: native,
    // A test draws its seed and prints it.
    except: new RegExp(`${native_edge.source}|_test\\.cc$`),
    instead: 'draw from env::Random, which is seeded in the simulator',
  },
  {
    pattern: /\bstd::this_thread::sleep_(?:for|until)\b/g,
    where: native,
    except: /^native\/(env\/linux|engined)\//,
    instead: 'await a condition or a runtime timer',
  },
  {
    pattern: /#include\s*<openssl\//g,
    where: native,
    except: /^native\/crypto\//,
    instead: 'call native/crypto, the only code that knows OpenSSL (third_party/openssl)',
  },
  {
    pattern: /\b(?:throw|dynamic_cast|typeid)\b\s*[\w(<]|\btry\s*\{/g,
    where: native,
    except: /$^/,
    instead: 'the engine is built without exceptions and RTTI: return Result<T>, or crash through the assertion',
  },
  {
    pattern: /\bDate\.now\s*\(|\bnew Date\(\s*\)|\bperformance\.now\s*\(|\bprocess\.hrtime\b/g,
    where: shipped,
    except: src_edge,
    instead: 'take the time from the Clock in src/env',
  },
  {
    pattern: /\bMath\.random\s*\(/g,
    where: shipped,
    except: src_edge,
    instead: 'draw from the Random in src/env',
  },
  {
    pattern: /(?<![\w.])(?:setTimeout|setInterval)\s*\(/g,
    where: shipped,
    except: src_edge,
    instead: 'use the timers of the Clock in src/env, with an AbortSignal',
  },
];

export const bannedCalls: Check = {
  name: 'time, randomness and timers come from env; no exceptions in native code',
  run: (tree: Tree) => tree.paths.flatMap((path) => banned(path, () => codeOnly(tree.read(path)))),
};

function banned(path: string, code: () => string): Finding[] {
  const findings: Finding[] = [];
  const active = bans.filter((ban) => ban.where.test(path) && !ban.except.test(path));
  if (active.length === 0) return findings;
  const text = code();
  for (const ban of active) {
    for (const match of text.matchAll(ban.pattern)) {
      const line = lineOf(text, match.index);
      findings.push({ path, line, message: `${match[0].replace(/[\s({]+$/, '')}: ${ban.instead}` });
    }
  }
  return findings;
}
