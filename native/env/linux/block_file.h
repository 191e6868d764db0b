// SPDX-License-Identifier: Apache-2.0
// Opening files and block devices for direct I/O: exclusive lock on the descriptor that does the I/O, O_DIRECT or an
// error, alignment limits from the kernel.
#pragma once

#include <memory>

#include "env/env.h"
#include "env/linux/file_backend.h"

namespace basalt::env {

Result<std::unique_ptr<BlockFile>> open_block_file(FileBackend& backend, const FileOptions& options);

}  // namespace basalt::env
