#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run lab -- NAME|all [VITEST ARGUMENTS]: sets up what is missing, builds the daemons, engined and the programs that guests run or histories need, then runs a scenario
# of the lab (test/e2e) in emulated guests, or all of them. `ci` stands for those that `npm run e2e` runs.
# npm run lab -- --list: their names.
# Needs no root once the system packages are there; the scenario `hosts` needs a network namespace. Last line: `N passed, N failed`; exit code
# not 0 if anything failed or nothing ran.
set -euo pipefail
script_name=lab
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
source "$root/scripts/lib/packages.sh"
source "$root/scripts/lib/native-build.sh"
source "$root/scripts/lib/own-network.sh"

wanted="${1:---list}"
if [[ "$wanted" == --list ]]; then
  [[ -d node_modules ]] || bash "$root/scripts/setup.sh" e2e --no-build >&2
  exec node --import tsx test/lab/prepare.ts --list
fi
shift

cannot_run() {
  say "$1 (messages above): no test has run"
  echo "0 passed, 1 failed"
  exit 1
}

bash "$root/scripts/setup.sh" e2e || cannot_run "set-up failed"

# The lab knows which packages it takes its tools from (test/lab/packages.ts).
tsx="$root/node_modules/.bin/tsx"
missing="$("$tsx" test/lab/prepare.ts --missing)"
if [[ -n "$missing" ]]; then
  command="apt-get update && apt-get install -y --no-install-recommends $missing"
  [[ "$(id -u)" == 0 ]] || die "the guest lab needs $missing. Run as root:
    $command"
  say "system packages: installing $missing"
  run_apt "$cache/logs/apt-update.log" update
  # shellcheck disable=SC2086
  run_apt "$cache/logs/apt-install.log" install -y --no-install-recommends $missing
fi
# Images are built here: a network of the run's own reaches no mirror.
network="$("$tsx" test/lab/prepare.ts "$wanted")" || cannot_run "the guests' images could not be made"
export BASALT_LAB="$wanted"
plain_build engined basalt_history basalt_check basalt_stack || cannot_run "the build failed"

report="$cache/lab/report.json"
rm -f "$report"
suites() {
  local command=("$root/node_modules/.bin/vitest" run --config test/e2e/vitest.config.ts
    --reporter=default --reporter=json --outputFile.json="$report" "$@")
  if [[ "$network" == "network own" ]]; then (in_own_network "${command[@]}"); else "${command[@]}"; fi
}
status=0
suites "$@" || status=$?
node - "$report" "$status" <<'JS'
const { readFileSync } = require('node:fs');
const [report, status] = process.argv.slice(2);
let passed = 0;
let failed = 0;
try {
  const result = JSON.parse(readFileSync(report, 'utf8'));
  passed = result.numPassedTests;
  // A suite that could not start has no failed test in it, and a skipped test proves nothing.
  const broken = result.testResults.filter((suite) => suite.status === 'failed' && suite.assertionResults.length === 0);
  failed = result.numTotalTests - passed + broken.length;
} catch (error) {
  console.error(`lab: no report: ${error.message}`);
}
if (status !== '0' && failed === 0) failed = 1;
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
JS
