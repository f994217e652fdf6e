//! Memory maps of sealed segments: the only unsafe code of this crate.
//!
//! A segment is sealed when nobody writes to it any more: it lies in an archive, or our own receiver has completed and
//! renamed it. Files in a running server's `pg_wal` are never sealed: PostgreSQL recycles them by renaming and
//! overwriting, so a map could change after its checksum was verified. Read those with `pread`.

#![allow(
    unsafe_code,
    reason = "mapping a file is unsafe by nature; see the SAFETY comment"
)]

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::Mmap;

/// A sealed segment's bytes, mapped into memory.
#[derive(Debug)]
pub struct MappedSegment(Mmap);

impl MappedSegment {
    /// Maps the whole file.
    ///
    /// # Safety
    /// The file must be sealed: no process writes to it, truncates it, or recycles it, for as long as this value lives.
    /// Removing or renaming it is harmless.
    ///
    /// # Errors
    /// When the system refuses, such as for an empty or a special file.
    pub unsafe fn map(file: &File) -> io::Result<Self> {
        // SAFETY: `Mmap::map` requires that the file's bytes do not change and the file does not shrink while the map
        // lives. The caller promises exactly that. The map is private to this value, handed out only as shared slices
        // that cannot outlive it, and holds its own reference to the file, so closing, renaming or unlinking the file
        // does not invalidate it.
        unsafe { Mmap::map(file) }.map(Self)
    }
}

impl Deref for MappedSegment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
