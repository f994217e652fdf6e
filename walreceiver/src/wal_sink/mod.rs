//! The WAL sink: where received WAL goes, and how it becomes durable.
//!
//! WAL is written under its final names into the mirror's `pg_wal`, so that the directory is at every instant one that
//! PostgreSQL can recover from. A segment is made under a temporary name at its full size, all zeros, synced, and then
//! renamed: a kill at any instant leaves only full-size segments, and temporary files that the next start (ours, or
//! PostgreSQL's) removes. Bytes are then written in place, with one copy, from the buffer of the socket.
//!
//! # Two threads
//! The receiving task hands buffers to the *writing thread* through a queue that is bounded by bytes. The writing thread
//! puts all that has queued up into the segment with one call, and tells the *syncing thread* how far it got. The
//! syncing thread syncs all that was written up to then, oldest segment first, and the segment's name with it. WAL that
//! arrives while it syncs is covered by its next round, so one sync serves as many commits as came in during the one
//! before, and receiving never waits for a disk.
//!
//! # Three positions
//! The *position* is where the next byte of the stream belongs; a stream with a gap or an overlap is refused. `write_lsn` is
//! the end of what the operating system has, `flush_lsn` the end of what survives a loss of power: it advances only
//! after the sync of the segment and, for a segment that is new, of the directory. Both are published as
//! [`SinkProgress`].
//!
//! # When a sync fails
//! The sink is dead at once and the process must end. A sync that is tried again would succeed, because the system has
//! taken the lost pages for clean. For the same reason opening a sink does not trust what an earlier process left: it
//! writes the last segments over themselves, at most as many as can have been unsynced, before it calls them durable.
//!
//! # Starting, reconnecting, and changing the timeline
//! PostgreSQL's walreceiver always requests WAL from the start of a segment, and so does `pg_receivewal`. Here the sink
//! knows the end of what it holds, and the caller may choose: to request the position itself, or to call
//! [`WalDestination::restart_at`] with the segment's start and request that. What is then sent again is not written
//! again, but compared, so that a server whose history has diverged is found before it overwrites anything.
//!
//! When a timeline ends, [`WalDestination::switch_timeline`] makes it durable and copies its last, partial segment into the new
//! timeline's first one before that has its name, as a promoted server does. Without the copy, a crash would leave a
//! file of zeros that hides acknowledged WAL from recovery, which prefers the newer timeline's file. After it the caller
//! requests the new timeline from the switch point, or from its segment's start as above.
//!
//! # Source
//! `XLogWalRcvWrite` and `XLogWalRcvFlush` in `src/backend/replication/walreceiver.c`, `RequestXLogStreaming` in
//! `walreceiverfuncs.c`, `XLogInitNewTimeline` in `src/backend/access/transam/xlog.c`.

#[cfg(test)]
mod crash_tests;
mod destination;
mod error;
pub mod faulty_storage;
mod progress;
mod segment_file;
mod segment_writer;
mod sink;
mod storage;
mod syncer;
#[cfg(test)]
mod tests;
mod writer_thread;

pub use destination::WalDestination;
pub use error::SinkError;
pub use progress::{ProgressReceiver, ProgressSender, SinkProgress};
pub use sink::{SinkOptions, SyncPolicy, WalSink};
pub use storage::{DiskStorage, Preallocation, Storage};
pub use syncer::FSYNC_SECONDS;
