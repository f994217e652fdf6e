//! Serves PostgreSQL WAL over the physical streaming replication protocol.
//!
//! A [`Sender`] listens and serves a [`source::WalSource`] to everyone who connects: PostgreSQL's standbys,
//! `pg_receivewal`, `pg_basebackup` and our own receiver follow it as they follow PostgreSQL. Sources are
//! [archives](source::served_archive::ServedArchive), which may grow while they are served, and
//! [recordings](source::recording::RecordedServer): a base backup and the WAL that followed it, from a real server.
//!
//! WAL in files goes to the sockets without passing through this process. What standbys confirm releases commits that wait
//! for them ([`Sender::wait_for`]), by the rule of `synchronous_standby_names`.
//!
//! | module | what |
//! |---|---|
//! | [`source`] | where WAL comes from |
//! | [`primary`] | the source beside a running PostgreSQL |
//! | [`backup`] | base backups of a data directory that is in use |
//! | `sender`, `listener` | the running sender, its sockets |
//! | [`auth`], [`tls`] | who may connect, and how he proves who he is |
//! | `connection` | one client: frames, startup, admission, session |
//! | `command` | one file for each replication command |
//! | [`writer`] | a log of a service's own, that standbys follow |
//! | [`slot`], [`standby`] | what is kept of slots and standbys |
//! | [`status`] | what a running sender says of itself, over a socket and as metrics |
//! | [`durable`], [`flushed_file`], [`lock_file`] | small files that survive a crash; one process at a time |
//!
//! Clients of this machine are trusted, others are not let in, unless [`auth::AccessFiles`] say otherwise.

#![deny(unsafe_code)]

pub mod auth;
pub mod backup;
mod cancel;
mod command;
mod config;
mod connection;
mod counters;
pub mod durable;
pub mod flushed_file;
#[doc(hidden)]
pub mod fuzzing;
mod listener;
pub mod lock_file;
pub mod primary;
mod refusal;
mod sender;
pub mod slot;
pub mod source;
pub mod standby;
pub mod status;
mod sync_names_file;
mod sync_rule_choice;
pub mod tls;
mod view;
pub mod writer;

pub use config::{ListenAddress, ListenAddressError, SenderConfig};
pub use counters::RefusedConnections;
pub use sender::{Sender, SenderError, WaitInterrupted};
pub use sync_names_file::{SyncNamesFile, SyncNamesFileError};
pub use sync_rule_choice::{SyncRuleChoice, UnknownSyncRule};
pub use view::SenderView;
