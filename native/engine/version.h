// SPDX-License-Identifier: Apache-2.0
// The version that the engine reports; equal to package.json's.
#pragma once

namespace basalt {
constexpr const char* version = "0.1.0";
}
