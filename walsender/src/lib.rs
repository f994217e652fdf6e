//! Serves PostgreSQL WAL over the physical streaming replication protocol.
//!
//! A [`Sender`] listens and serves a [`source::WalSource`] to everyone who connects: PostgreSQL's standbys,
//! `pg_receivewal`, `pg_basebackup` and our own receiver follow it as they follow PostgreSQL. The source that exists so
//! far is a [recording](source::recording::RecordedServer): a base backup and the WAL that followed it, from a real
//! server.
//!
//! | module | what |
//! |---|---|
//! | [`source`] | where WAL comes from |
//! | [`primary`] | the source beside a running PostgreSQL |
//! | [`backup`] | base backups of a data directory that is in use |
//! | `sender`, `listener` | the running sender, its sockets |
//! | `connection` | one client: frames, startup, session |
//! | `command` | one file for each replication command |
//! | [`slot`], [`standby`] | what is kept of slots and standbys |
//! | [`durable`], [`lock_file`] | small files that survive a crash; one process at a time |
//!
//! There is no authentication yet: clients of the same machine are trusted, all others are refused.

#![deny(unsafe_code)]

pub mod backup;
mod cancel;
mod command;
mod config;
mod connection;
pub mod durable;
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

pub use config::{ListenAddress, ListenAddressError, SenderConfig};
pub use sender::{Sender, SenderError, WaitInterrupted};
