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
//! | `sender`, `listener` | the running sender, its sockets |
//! | `connection` | one client: frames, startup, session |
//! | `command` | one file for each replication command |
//! | [`writer`] | a log of a service's own, that standbys follow |
//! | [`slot`], [`standby`] | what is kept of slots and standbys |
//! | [`durable`], [`flushed_file`], [`lock_file`] | small files that survive a crash; one process at a time |
//!
//! There is no authentication yet: clients of the same machine are trusted, all others are refused.

#![deny(unsafe_code)]

mod cancel;
mod command;
mod config;
mod connection;
pub mod durable;
pub mod flushed_file;
#[doc(hidden)]
pub mod fuzzing;
mod listener;
pub mod lock_file;
mod refusal;
mod sender;
pub mod slot;
pub mod source;
pub mod standby;
pub mod writer;

pub use config::{ListenAddress, ListenAddressError, SenderConfig};
pub use sender::{Sender, SenderError, WaitInterrupted};
