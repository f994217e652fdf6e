//! What a running sender says of itself: one [`SenderStatus`], for `walsender status`, for metrics, and for a hub.
//!
//! ```text
//!   Sender ── SenderView::status ──▶ SenderStatus ──▶ socket: JSON, to whoever may open it
//!                                         └─────────▶ metrics: Prometheus text, over HTTP
//! ```
//!
//! It is gathered when somebody asks, so nothing of it is older than the question, and a sender that nobody asks does
//! nothing for it.
//!
//! | module | what |
//! |---|---|
//! | [`sender_status`] | the whole, and how it is gathered |
//! | [`standby`], [`slot`] | a line of `pg_stat_replication`, of `pg_replication_slots` |
//! | [`socket`] | the unix socket that answers |
//! | [`metrics`] | the same as Prometheus metrics, [`http`] serves them |
//! | [`table`], [`text`] | tables, times and LSNs as people read them |

pub mod http;
pub mod metrics;
pub mod sender_status;
pub mod slot;
pub mod socket;
pub mod standby;
pub mod table;
pub mod text;

pub use sender_status::{ConnectionCounts, SenderStatus, SourceStatus, SyncStatus, WaitingCommits};
pub use slot::SlotLine;
pub use standby::StandbyLine;
