// SPDX-License-Identifier: Apache-2.0
// What a process leaves behind when it crashes must hold no keys.
#pragma once

namespace basalt::env {

// From now on the kernel writes no core dump of this process, whatever the limits and the machine's handler of dumps
// say, and nobody but root may attach to it or read its memory. It holds until the process runs another program.
void refuse_core_dumps();

}  // namespace basalt::env
