# SPDX-License-Identifier: Apache-2.0
# A network namespace for one program. Source it.
# shellcheck shell=bash

# in_own_network COMMAND...: becomes COMMAND in a fresh network namespace (root's, or an ordinary user's own where the kernel
# allows it), with BASALT_NETWORK=own in its environment; without one where there may be none. There is no process in
# between that a kill could leave behind.
in_own_network() {
  local enter=()
  if unshare -n ip link >/dev/null 2>&1; then
    enter=(unshare -n)
  elif unshare -Urn ip link >/dev/null 2>&1; then
    enter=(unshare -Urn)
  else
    exec "$@"
  fi
  # shellcheck disable=SC2016
  BASALT_NETWORK=own exec "${enter[@]}" sh -c 'ip link set lo up && exec "$@"' sh "$@"
}
