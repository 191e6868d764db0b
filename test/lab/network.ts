// SPDX-License-Identifier: Apache-2.0
// Addresses of the emulator's user-mode network: what listens on 127.0.0.1 of the machine is `machineAddress` in the guest.

export const machineAddress = '10.0.2.2';
export const guestAddress = '10.0.2.15';
