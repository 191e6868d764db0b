// SPDX-License-Identifier: Apache-2.0
// node-addon-api as this addon uses it; every file includes this instead of <napi.h>.
#pragma once

// A worker that is being terminated refuses exceptions: then there is nobody left to tell, and that is no fatal error.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#include <napi.h>
