// SPDX-License-Identifier: Apache-2.0
//
// Who uses an epoch that its holder drew for another process: the instance is made of that process' incarnation and the
// epoch, so that both sides know it and nobody else can have it - another life of the successor has another incarnation.

const incarnationDigits = /^[0-9a-f]{20}$/;
const epochDigits = 12;

/** Null: the process has no incarnation that an instance can be made of, or the epoch is too large for it. */
export function grantInstance(incarnation: string, epoch: number): string | null {
  const hex = epoch.toString(16).padStart(epochDigits, '0');
  if (!incarnationDigits.test(incarnation) || hex.length > epochDigits) return null;
  const part = (from: number, to: number): string => incarnation.slice(from, to);
  return [part(0, 8), part(8, 12), part(12, 16), part(16, 20), hex].join('-');
}

/** Whether it looks like one that was granted: another instance does by a chance of one in 2^48. */
export function isGrantInstance(instance: string | null, epoch: number): boolean {
  return instance?.endsWith(`-${epoch.toString(16).padStart(epochDigits, '0')}`) === true;
}
