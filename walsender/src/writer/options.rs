//! [`WriterOptions`]: how a log is written and what is kept of it.

use std::time::Duration;

use walstream::SegmentSize;

use crate::slot::PhysicalSlots;
use crate::slot::wal_status::WalKeepSettings;

/// How a log is written and kept. None of it is stored with the log.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Most bytes that wait to be flushed (`wal_buffers`); appending beyond that waits. A record is always taken whole.
    pub buffer_size: u64,
    /// Bytes of flushed WAL kept in memory, from which standbys are served that keep up.
    pub recent_size: u64,
    /// What was appended is flushed after this time though nobody waits for it (`wal_writer_delay`).
    pub flush_delay: Duration,
    /// Whether opening checks every segment, and not only the last ones.
    pub check_all: bool,
    /// Version that the sender answers as (`server_version_num`); `None`: the log's major version, minor version 0.
    pub server_version_num: Option<u32>,
    /// Slots whose WAL is kept: those that the [`Sender`](crate::Sender) is started with.
    pub slots: Option<PhysicalSlots>,
    /// Bytes kept for standbys without slots (`wal_keep_size`).
    pub wal_keep_size: u64,
    /// Most that slots may keep (`max_slot_wal_keep_size`); `None`: any amount.
    pub max_slot_wal_keep_size: Option<u64>,
}

impl Default for WriterOptions {
    /// 16 MiB of buffers and as much recent WAL, PostgreSQL's `wal_writer_delay`, no slots.
    fn default() -> Self {
        Self {
            buffer_size: 16 << 20,
            recent_size: 16 << 20,
            flush_delay: Duration::from_millis(200),
            check_all: false,
            server_version_num: None,
            slots: None,
            wal_keep_size: 0,
            max_slot_wal_keep_size: None,
        }
    }
}

impl WriterOptions {
    /// The settings that say how much WAL is kept, as [`slot::wal_status`](crate::slot::wal_status) takes them.
    #[must_use]
    pub const fn wal_keep_settings(&self, segment_size: SegmentSize) -> WalKeepSettings {
        WalKeepSettings {
            wal_keep_size: self.wal_keep_size,
            max_slot_wal_keep_size: self.max_slot_wal_keep_size,
            ..WalKeepSettings::new(segment_size)
        }
    }
}
