// SPDX-License-Identifier: Apache-2.0
//
// Bugs of the control plane that a simulation can plant, to prove that it would find them. Nothing else sets them.

export interface PlantedBugs {
  /** Serve as soon as one member of each leg obeys; the others stay in the set without having been taken over. */
  readonly promoteBeforeTakeover?: boolean;
  /** Tell the engine to go on without a failed member before the store agreed. */
  readonly shrinkWithoutConsent?: boolean;
  /** Serve at once although an old controller that was not reached may still answer reads. */
  readonly ignoreLeftoverLease?: boolean;
  /** A member cuts a snapshot while it is being copied: its head becomes right, its copy of the snapshot never does. */
  readonly resyncHeadOnly?: boolean;
  /** The volumes of a group are cut one after another, each while only its own requests are held. */
  readonly cutVolumesApart?: boolean;
  /** A member of a leg with parity is exchanged for one that is not equal to it yet. */
  readonly exchangeBeforeEqual?: boolean;
}
