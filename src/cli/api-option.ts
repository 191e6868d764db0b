// SPDX-License-Identifier: Apache-2.0

import { ApiClient } from '../client/api-client.js';
import { defaults } from '../model/config.js';
import { readConfig } from './config-file.js';
import type { CliWorld } from './launch.js';
import type { CommonOptions } from './output.js';

/** `--api`, else BASALT_API, else what the configuration file says, else the default. */
export async function apiClient(world: CliWorld, options: CommonOptions): Promise<ApiClient> {
  const named = options.api ?? world.environment['BASALT_API'];
  if (named !== undefined && named !== '') return new ApiClient({ endpoint: named });
  if (options.config === undefined) return new ApiClient({ endpoint: defaults.apiListen });
  return new ApiClient({ endpoint: (await readConfig(world, options.config)).api.listen });
}
