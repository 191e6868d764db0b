// SPDX-License-Identifier: Apache-2.0
// Command of scripts/lab.sh:
//   tsx test/lab/prepare.ts --missing    the packages the lab still needs, one line, empty when none
//   tsx test/lab/prepare.ts --list       the scenarios
//   tsx test/lab/prepare.ts NAME|all|ci  builds the images that the scenarios need; last line: `network own` or `network any`

import { chosenScenarios, scenarios } from '../e2e/scenarios.js';
import { ensureImage } from './image.js';
import { missingPackages } from './packages.js';

async function main(wanted: string): Promise<number> {
  if (wanted === '--missing') {
    process.stdout.write(`${(await missingPackages()).join(' ')}\n`);
    return 0;
  }
  if (wanted === '--list') {
    for (const { name, title, everyChange } of scenarios)
      process.stdout.write(`${name.padEnd(12)} ${everyChange ? 'e2e' : '   '}  ${title}\n`);
    return 0;
  }
  const chosen = chosenScenarios(wanted);
  if (chosen.length === 0) {
    process.stderr.write(`lab: no scenario is called ${wanted}; see npm run lab -- --list\n`);
    return 2;
  }
  const progress = (message: string): void => void process.stderr.write(`lab: ${message}\n`);
  // Named alike, several scenarios share an image.
  const systems = new Map(chosen.flatMap(({ systems }) => systems.map((system) => [JSON.stringify(system), system])));
  for (const system of systems.values()) await ensureImage(system, { progress });
  process.stdout.write(`network ${chosen.some(({ ownNetwork }) => ownNetwork === true) ? 'own' : 'any'}\n`);
  return 0;
}

process.exitCode = await main(process.argv[2] ?? '--list');
