#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run e2e [-- VITEST ARGUMENTS]: sets up what is missing, builds the daemons and engined, then runs the guest suites
# (test/e2e). Needs no root once the system packages are there. Last line: `N passed, N failed`; exit code not 0 if anything
# failed or nothing ran.
set -euo pipefail
script_name=e2e
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
source "$root/scripts/lib/packages.sh"
source "$root/scripts/lib/native-build.sh"

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
"$tsx" test/lab/prepare.ts >/dev/null
native_build build/release engined -DCMAKE_BUILD_TYPE=Release || cannot_run "the build failed"

report="$cache/lab/report.json"
rm -f "$report"
status=0
"$root/node_modules/.bin/vitest" run --config test/e2e/vitest.config.ts \
  --reporter=default --reporter=json --outputFile.json="$report" "$@" || status=$?
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
  console.error(`e2e: no report: ${error.message}`);
}
if (status !== '0' && failed === 0) failed = 1;
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
JS
