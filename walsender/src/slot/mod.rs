//! Physical replication slots: how far each standby has come, which outlives the sender, and the WAL that is kept for it.
//!
//! [`PhysicalSlots`] is what connections use. With a directory behind it, a slot is durable before its creation is
//! answered, and durably gone before its drop is. What standbys confirm changes memory only, and is saved every few
//! seconds and at the end ([`PhysicalSlots::save_dirty`]).
//!
//! **Invariant:** what is kept ([`PhysicalSlots::retained_from`]) goes by the least restart LSN that a slot's file may
//! hold, never by memory alone. After a crash a slot is back at what was saved, and a standby that asks READ_REPLICATION_SLOT
//! where to go on is sent there.
//!
//! | module | what |
//! |---|---|
//! | `registry`, `entry` | the slots in memory |
//! | `store`, `storage` | the directory; the seam to the file system |
//! | `told` | what a running sender tells those who look from outside |
//! | `file` | bytes of a slot's file |
//! | `name` | which names are allowed |
//! | [`wal_status`] | what a server keeps; `reserved`, `extended`, `unreserved`, `lost` |

mod entry;
mod error;
pub(crate) mod file;
mod name;
mod registry;
mod storage;
mod store;
mod told;
pub mod wal_status;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod faulty_storage;
#[cfg(test)]
mod tests;

pub use entry::SlotView;
pub use error::SlotError;
pub use file::{SavedSlot, SlotFileError};
pub use name::{SlotNameError, validate_name};
pub use registry::{AcquiredSlot, Invalidation, PhysicalSlots};
pub use store::{SlotStoreError, StoredSlots, read_slots};
pub use told::ToldSlot;
