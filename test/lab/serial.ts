// SPDX-License-Identifier: Apache-2.0
// Reads meaning out of the guest's two serial logs (see init.ts for the words). Pure.

/**
 * The kernel died before anything of ours ran, of a breakpoint that it had put into its own code for a moment: the
 * emulator runs what is being patched on one processor on another one. Says nothing of what the guest was for.
 */
export function diedOfEmulator(consoleLines: readonly string[]): boolean {
  const isBegun = consoleLines.some((line) => line.includes('GUEST-START'));
  return !isBegun && consoleLines.some((line) => /Oops: int3: 0000/.test(line));
}

/**
 * The script's exit code, from a console log; null when the guest never reported one, which is a failure whatever the
 * emulator's own exit code says. The last report counts: a script may print an earlier guest's log.
 */
export function parseGuestExit(consoleLines: readonly string[]): number | null {
  let rc: number | null = null;
  for (const line of consoleLines) {
    // A kernel message may stand before the report on the same console line, never inside it.
    const found = /GUEST-EXIT rc=(\d+)\s*$/.exec(line)?.[1];
    if (found !== undefined) {
      rc = Number(found);
    }
  }
  return rc;
}

/** Same from the control line. */
export function parseControlExit(controlLines: readonly string[]): number | null {
  for (const line of controlLines) {
    const found = /^EXIT (\d+)$/.exec(line)?.[1];
    if (found !== undefined) {
      return Number(found);
    }
  }
  return null;
}

/** What the script handed back with `value` and `value_file`; the last one of a key counts. */
export function parseValues(controlLines: readonly string[]): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const line of controlLines) {
    const found = /^VALUE (\S+) (.*)$/.exec(line);
    if (found === null) {
      continue;
    }
    const [, key = '', text = ''] = found;
    values.set(key, text.startsWith('base64:') ? Buffer.from(text.slice(7), 'base64').toString('utf8') : text);
  }
  return values;
}

/** The kernel messages that the guest prints when its script fails. */
export function parseDmesg(consoleLines: readonly string[]): string[] {
  const begin = consoleLines.lastIndexOf('GUEST-DMESG-BEGIN');
  if (begin < 0) {
    return [];
  }
  const end = consoleLines.indexOf('GUEST-DMESG-END', begin);
  return consoleLines.slice(begin + 1, end < 0 ? undefined : end);
}
