//! [`Exit`], the documented exit codes of the `walreceiver` program, and [`Recovery`], whether trying again can help.

/// Exit codes of every `walreceiver` command. Scripts may rely on them; the README lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Failed in a way that has no code of its own.
    Failure = 1,
    /// The command line, a connection string or a setting is wrong.
    Usage = 2,
    /// No server could be reached, or the connection was lost, and the command does not wait for it.
    Unreachable = 3,
    /// The server refused us: wrong password, no `pg_hba.conf` entry, no replication right, untrusted certificate.
    Denied = 4,
    /// The server cannot give what we need: slot missing or lost, WAL already removed, no free walsender.
    Unavailable = 5,
    /// Another system identifier, or a timeline that has diverged from the mirror's.
    WrongSystem = 6,
    /// WAL, a backup or a mirror file is damaged, or the peer does not keep to the protocol.
    Corrupt = 7,
    /// This machine's storage failed: full, unwritable, or a failed `fsync`.
    LocalStorage = 8,
    /// Another process has the mirror locked.
    Locked = 9,
    /// Going on would not be safe, and nobody said to: the primary still answers, the mirror is not whole, the target
    /// directory is not empty.
    Unsafe = 10,
    /// Interrupted by SIGINT or SIGTERM before the work was done.
    Interrupted = 130,
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Whether the same step may succeed when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The cause may pass by itself: a daemon tries again with backoff.
    Passing,
    /// The cause stays until a person acts: a daemon stops.
    Permanent,
}
