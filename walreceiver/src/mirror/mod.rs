//! The mirror directory: its own files, and the proof that what it holds is whole.
//!
//! A mirror is a PostgreSQL data directory whose `pg_wal` grows by what is received, plus these files of ours:
//!
//! | file | what | durable when |
//! |---|---|---|
//! | `walstream.mirror` | what is mirrored, and from where ([`state::MirrorState`]) | replaced atomically, synced |
//! | `walstream.flushed` | the LSN last acknowledged as flushed ([`flushed::FlushedFile`]) | after a process is killed: exact; after power loss: a lower bound |
//! | `walstream.lock` | held while a command changes the mirror | never |
//! | `walstream.init` | while `init` is at work; gone before `walstream.mirror` is written | synced |
//! | `walstream.status` | what the daemon last said of itself, for people | never |
//! | `walstream.sock` | where a running daemon answers `status` | never |

pub mod lock;
pub mod next_transaction;
pub mod owner;
pub mod resume;
pub mod scan;
pub mod state;
pub mod wal_files;

pub use walsender::{durable, flushed_file as flushed};
