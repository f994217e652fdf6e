//! State files of prepared transactions, `pg_twophase/*`.
//!
//! A file is what the transaction's `PREPARE` record has as main data, and the CRC-32C of it in 4 bytes. The state begins with the
//! magic number 0x57F94534 and the file's length, 4 bytes each.
//!
//! # Source
//! `src/backend/access/transam/twophase.c`.

use std::fmt;

use thiserror::Error;

use crate::dialect::PgMajor;
use crate::read::{OutOfBytes, Reader};
use crate::types::TransactionId;

/// The directory, relative to the data directory (`TWOPHASE_DIR`).
pub const DIRECTORY: &str = "pg_twophase";
/// `TWOPHASE_MAGIC`.
pub(crate) const MAGIC: u32 = 0x57F9_4534;
/// Bytes of the CRC at the end.
const CRC_LEN: usize = 4;

/// A state file that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TwoPhaseError {
    /// It ends too early.
    #[error("state of a prepared transaction ends too early: {0}; take the file from a backup")]
    Short(#[from] OutOfBytes),
    /// It is no state file.
    #[error(
        "state of a prepared transaction begins with {found:#x}, expected 0x57F94534; take the file from a backup"
    )]
    Magic {
        /// The first number.
        found: u32,
    },
    /// It does not have the length that it says.
    #[error(
        "state of a prepared transaction says {stated} bytes and has {found}; take the file from a backup"
    )]
    Len {
        /// What it says.
        stated: u32,
        /// What it has.
        found: usize,
    },
    /// Its checksum is wrong.
    #[error(
        "state of a prepared transaction is damaged: it stores CRC {found:08X}, its content has {computed:08X}; take the file from a backup"
    )]
    Crc {
        /// The stored CRC-32C.
        found: u32,
        /// The content's CRC-32C.
        computed: u32,
    },
}

/// The state in a file, whose length and CRC are right: what [`crate::redo::PreparedTransaction`] reads.
///
/// # Errors
/// [`TwoPhaseError`].
///
/// # Source
/// `ReadTwoPhaseFile` in `src/backend/access/transam/twophase.c`.
pub fn check_state_file(file: &[u8]) -> Result<&[u8], TwoPhaseError> {
    let mut reader = Reader::new(file);
    let state = reader.take(file.len().saturating_sub(CRC_LEN))?;
    let found = reader.u32_le()?;
    let mut header = Reader::new(state);
    let (magic, stated) = (header.u32_le()?, header.u32_le()?);
    if magic != MAGIC {
        return Err(TwoPhaseError::Magic { found: magic });
    }
    if usize::try_from(stated) != Ok(file.len()) {
        return Err(TwoPhaseError::Len {
            stated,
            found: file.len(),
        });
    }
    let computed = crc32c::crc32c(state);
    if found != computed {
        return Err(TwoPhaseError::Crc { found, computed });
    }
    Ok(state)
}

/// A state file's content: that of a `PREPARE` record, and its CRC.
///
/// # Source
/// `RecreateTwoPhaseFile` in `src/backend/access/transam/twophase.c`.
#[must_use]
pub fn state_file(state: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(state.len() + CRC_LEN);
    file.extend_from_slice(state);
    file.extend(crc32c::crc32c(state).to_le_bytes());
    file
}

/// A state file's name: the transaction, since PostgreSQL 17 with its epoch.
///
/// # Source
/// `TwoPhaseFilePath` in `src/backend/access/transam/twophase.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateFileName {
    /// The transaction, its epoch in the upper 32 bits.
    pub full_xid: u64,
    /// The server's version.
    pub major: PgMajor,
}

impl StateFileName {
    /// The transaction of a file with this name; `None` for other files. Before PostgreSQL 17 the epoch is not known and 0.
    #[must_use]
    pub fn parse(name: &str, major: PgMajor) -> Option<Self> {
        let digits = if major >= PgMajor::V17 { 16 } else { 8 };
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
        if name.len() != digits || !name.bytes().all(is_digit) {
            return None;
        }
        let full_xid = u64::from_str_radix(name, 16).ok()?;
        Some(Self { full_xid, major })
    }

    /// The transaction without its epoch.
    #[must_use]
    pub const fn xid(self) -> TransactionId {
        let [a, b, c, d, ..] = self.full_xid.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl fmt::Display for StateFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.major >= PgMajor::V17 {
            write!(f, "{:016X}", self.full_xid)
        } else {
            write!(f, "{:08X}", self.xid())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_checked() {
        let mut state = MAGIC.to_le_bytes().to_vec();
        state.extend(20u32.to_le_bytes());
        state.extend([7; 8]);
        let file = state_file(&state);
        assert_eq!(check_state_file(&file), Ok(&state[..]));
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert!(check_state_file(&bad).is_err(), "byte {at}");
            assert!(check_state_file(&file[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn names() {
        let name = |full_xid, major| StateFileName { full_xid, major }.to_string();
        assert_eq!(name(0x1_0000_02E7, PgMajor::V16), "000002E7");
        assert_eq!(name(0x1_0000_02E7, PgMajor::V17), "00000001000002E7");
        let parsed = StateFileName::parse("00000001000002E7", PgMajor::V17).unwrap();
        assert_eq!((parsed.full_xid, parsed.xid()), (0x1_0000_02E7, 0x2E7));
        assert_eq!(StateFileName::parse("00000001000002E7", PgMajor::V16), None);
        assert_eq!(StateFileName::parse("000002e7", PgMajor::V16), None);
    }
}
