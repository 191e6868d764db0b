// SPDX-License-Identifier: Apache-2.0
// The checker's words, as the simulator uses them.
#pragma once

#include "check/checker.h"
#include "check/history.h"
#include "check/stamp.h"

namespace basalt::sim {

using check::block_bytes;
using check::BlockKind;
using check::BlockValue;
using check::check_history;
using check::History;
using check::never_ns;
using check::Op;
using check::OpStatus;
using check::OpType;
using check::PowerCut;
using check::read_stamp;
using check::ReplicaImage;
using check::Stamp;
using check::write_stamp;

}  // namespace basalt::sim
