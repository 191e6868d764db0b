// SPDX-License-Identifier: Apache-2.0
// Errors of the lab: every failure of a guest test that is not an assertion carries one of these codes.

export type LabErrorCode =
  | 'LAB_PACKAGES_MISSING' // a tool of the machine is absent; the message holds the command that installs it
  | 'LAB_MIRROR_UNREACHABLE' // the package mirror did not deliver; the message holds its name
  | 'LAB_IMAGE_BROKEN' // the image could not be put together
  | 'LAB_GUEST_LOST' // the emulator ended and the guest never reported an exit code
  | 'LAB_GUEST_DEADLINE' // the guest ran longer than its deadline and was killed
  | 'LAB_WAIT_DEADLINE' // an awaited line did not appear in time
  | 'LAB_ABORTED'; // the caller's AbortSignal fired

export class LabError extends Error {
  readonly code: LabErrorCode;

  constructor(code: LabErrorCode, message: string, options?: ErrorOptions) {
    super(`${code}: ${message}`, options);
    this.name = 'LabError';
    this.code = code;
  }
}
