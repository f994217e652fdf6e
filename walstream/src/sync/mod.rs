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
//!
//! ```
//! use std::sync::mpsc;
//! use walstream::sync::{StandbyLsns, StandbyNames, SyncRep, SyncRule, SyncState, WaitMode, WalSenderState};
//! use walstream::{Lsn, PgTimestamp};
//!
//! // The sender keeps this behind one lock. A commit is woken through a channel.
//! let names = StandbyNames::parse("FIRST 1 (s1, s2)")?;
//! let mut sync_rep = SyncRep::new(SyncRule::from(names), Lsn(100));
//! let (woken, wakes) = mpsc::channel();
//!
//! // A connection's task tells what its standby does,
//! let s2 = sync_rep.join("s2");
//! sync_rep.handle_state(s2, WalSenderState::Streaming);
//! // a commit waits, its record being flushed here,
//! sync_rep.handle_local_flush(Lsn(200));
//! let waiter = sync_rep.wait(Lsn(200), WaitMode::RemoteFlush, || woken);
//! assert!(waiter.is_some());
//! // and the standby's reply releases it.
//! let now = PgTimestamp(0);
//! sync_rep.handle_send(s2, Lsn(200), now);
//! sync_rep.handle_sent(s2, Lsn(200));
//! let reply = StandbyLsns { write: Lsn(200), flush: Lsn(200), apply: Lsn(0) };
//! sync_rep.handle_reply(s2, reply, now, now);
//! while let Some((_, woken)) = sync_rep.poll_released() {
//!     let _ = woken.send(());
//! }
//! assert_eq!(wakes.try_recv(), Ok(()));
//! assert_eq!(sync_rep.rows().next().map(|row| row.sync_state), Some(SyncState::Sync));
//! # Ok::<(), walstream::sync::StandbyNamesError>(())
//! ```

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
pub use waiters::{UnknownWaitMode, WaitMode, WaiterId, Waiters};
