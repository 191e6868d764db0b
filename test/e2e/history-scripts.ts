// SPDX-License-Identifier: Apache-2.0
// Generators of the guest scripts of the scenario `history`. Pure. The freight with basalt_history is /dev/vda, the disk that
// its history goes to /dev/vdb; that one outlives the guest.

import { unpackFreight } from '../lab/freight.js';
import { connectScript } from './filesystem-scripts.js';
import type { TwoPathTarget } from './two-path-target.js';

type Where = Pick<TwoPathTarget, 'nqn' | 'ports'>;

export const clientCount = 8;
/** Well under what emulation carries, so that the rate sets the duration. */
const rate = 250;
/** 16 MiB: parts of every leg. */
const blocks = 4096;
/** What the second guest puts back behind the back of its clients. */
const oldBlocks = 64;

function recorder(where: Where, seed: number): string {
  return `${connectScript(where)}${unpackFreight('/dev/vda')}
record() {
  basalt_history --device "$disk" --history /dev/vdb --blocks ${blocks} --clients ${clientCount} --rate ${rate} --seed ${seed} "$@"
}
# So many writes more, of all kinds of operations about twice that.
work_on() {
  _from=$(writes_done)
  until_ok 90 wrote_more_than $((_from + $1)) || { cat /run/said; fail "no writes"; }
}
`;
}

/**
 * A history through the death of the active controller (mark recording, GO killed; mark survived) and its return (GO
 * restarted), until the test takes this guest's power (mark crash-me).
 */
export function recordScript(where: Where, seed: number): string {
  return `${recorder(where, seed)}
step "record"
record --seconds 600 >/run/said 2>&1 &
recorder_pid=$!
until_ok 60 grep -q running /run/said || { cat /run/said; fail "it does not run"; }
work_on 300
mark recording
wait_go killed 60
work_on 300
mark survived
wait_go restarted 120
until_ok 60 paths_are 1 1 || { nvme list-subsys "$disk"; fail "the path did not come back"; }
work_on 200
kill -0 $recorder_pid 2>/dev/null || { cat /run/said; fail "it ended early"; }
host_is_clean
mark crash-me
sleep 600
fail "nobody crashed this guest"
`;
}

/**
 * After the crash: goes on with the history, which reads every block first, and ends it in order (mark recorded, GO spoil).
 * Then puts old blocks back where nobody put it down, and goes on once more.
 * Hands back: resumed, spoilt (what basalt_history said).
 */
export function goOnScript(where: Where, seed: number): string {
  return `${recorder(where, seed)}
read_old() { echo 3 >/proc/sys/vm/drop_caches; dd if="$disk" of="$1" bs=4096 count=${oldBlocks} 2>/dev/null || fail "dd"; }
step "go on"
read_old /run/old
record --resume --seconds 4 >/run/said 2>&1 || { cat /run/said; fail "basalt_history: exit code $?"; }
value_file resumed /run/said
host_is_clean
mark recorded
wait_go spoil 60
step "spoil"
read_old /run/new
cmp -s /run/old /run/new && fail "the first blocks were not overwritten"
dd if=/run/old of="$disk" bs=4096 count=${oldBlocks} conv=notrunc,fsync 2>/dev/null || fail "putting old blocks back"
record --resume --ops 1 >/run/said 2>&1 || { cat /run/said; fail "basalt_history: exit code $?"; }
value_file spoilt /run/said
nvme disconnect -n ${where.nqn}
step done
`;
}
