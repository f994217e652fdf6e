//! Synchronous replication as the primary sees it: which standbys commits wait for, and how far they are.
//!
//! A standby says how far it has written, flushed and applied WAL. [`SyncRule`] says which standbys count: those that
//! [`StandbyNames`] lists, or in the Greenplum family whichever is near enough. From both follow each standby's
//! [`SyncState`] and the released LSNs, up to which commits need not wait. A commit that waits is one of [`Waiters`].
//! How late a standby is, in time, is measured by its [`LagTracker`].
//!
//! [`SyncRep`] puts them together for a sender: one value, behind one lock, that is told what happens and says who need
//! not wait any longer. Nothing here reads a clock or wakes anybody: `now` is an argument, and what is to be woken is
//! the caller's own type.

mod candidates;
mod greenplum;
mod lag;
mod released;
pub mod standby_names;
mod state;
mod sync_rep;
mod waiters;

pub use candidates::{SyncStandby, select_synchronous};
pub use greenplum::GreenplumRule;
pub use lag::{LagTracker, ReplicationLag};
pub use released::{ReleasedLsns, nth_latest, oldest};
pub use standby_names::{StandbyNames, StandbyNamesError, SyncMethod};
pub use state::{StandbyLsns, SyncState, WalSenderState};
pub use sync_rep::{StandbyId, StandbyRow, SyncRep, SyncRule};
pub use waiters::{WaitMode, WaiterId, Waiters};
