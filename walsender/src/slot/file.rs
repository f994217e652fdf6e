//! [`SavedSlot`], what survives of a slot, and the bytes of its file.
//!
//! A file has 104 bytes, or 120 when the slot has an xmin; all numbers are little-endian:
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | `walslot` and a line feed |
//! | 8 | 4 | version of the format: 1, or 2 with an xmin |
//! | 12 | 4 | zero |
//! | 16 | 8 | restart LSN; 0: the slot keeps no WAL |
//! | 24 | 8 | restart LSN at which it was invalidated; 0: it was not |
//! | 32 | 64 | name, padded with zeros |
//! | 96 | 4 | zero |
//! | 100 | 8 | version 2: xmin with its epoch; 0: none |
//! | 108 | 8 | version 2: catalog_xmin with its epoch; 0: none |
//! | 100 or 116 | 4 | CRC-32C of everything before |
//!
//! In every version to come the first twelve bytes stay, and the last four are the checksum of what is before them: so a
//! file of a newer program is told from a damaged one. Whatever the bytes are, parsing neither panics nor reserves memory,
//! and what it accepts is exactly what [`SavedSlot::encode`] writes.

use thiserror::Error;
use walstream::Lsn;
use walstream::protocol::horizon::XminHorizon;
use walstream::read::{OutOfBytes, Reader};
use walstream::types::FullTransactionId;

use super::name::{SlotNameError, validate_name};

const MAGIC: [u8; 8] = *b"walslot\n";
/// Version of a file without an xmin.
const VERSION: u32 = 1;
/// Version of a file with one.
const VERSION_WITH_XMIN: u32 = 2;
const NAME_LEN: usize = 64;
/// Bytes without the checksum.
const CONTENT_LEN: usize = 100;
const CONTENT_LEN_WITH_XMIN: usize = CONTENT_LEN + 16;
/// Bytes of the file of a slot without an xmin.
const FILE_LEN: usize = CONTENT_LEN + 4;

const _: () = assert!(super::name::MAX_NAME < NAME_LEN);

/// What survives of a slot: the content of its file.
///
/// # Source
/// `ReplicationSlotPersistentData` in `src/include/replication/slot.h`; what only logical slots have is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedSlot {
    /// A name that [`validate_name`] accepts.
    pub name: String,
    /// WAL from here on is kept; `None` until the slot has reserved WAL, and when it has lost it.
    pub restart_lsn: Option<Lsn>,
    /// What `restart_lsn` was when the slot's WAL was given up.
    pub invalidated_at: Option<Lsn>,
    /// The oldest transactions that the slot's standby needs.
    pub horizon: XminHorizon,
}

/// Bytes that are no slot's file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SlotFileError {
    /// It is shorter or longer than a slot's file is.
    #[error("it has {found} bytes, which no slot's file has")]
    Length {
        /// Bytes that there are.
        found: usize,
    },
    /// It begins with something else.
    #[error("it does not begin as a slot's file does")]
    Magic,
    /// The content is not what was written.
    #[error("its checksum is {found:08x}, and its content has {expected:08x}")]
    Checksum {
        /// What the file says.
        found: u32,
        /// What its content gives.
        expected: u32,
    },
    /// It was written by a newer program.
    #[error(
        "its format is {found}, and this program knows formats up to {VERSION_WITH_XMIN}: use a newer one"
    )]
    Version {
        /// Version of the format.
        found: u32,
    },
    /// The file is one with an xmin, and has none.
    #[error("it has the format of a slot with an xmin, and no xmin that can be")]
    NoXmin,
    /// Bytes that are zero in every file are not.
    #[error("unused bytes at offset {offset} are not zero")]
    Unused {
        /// Offset in the file, in bytes.
        offset: usize,
    },
    /// The slot has a name that no slot can have.
    #[error(transparent)]
    Name(#[from] SlotNameError),
}

impl SavedSlot {
    /// Reads the content of a slot's file.
    ///
    /// # Errors
    /// [`SlotFileError`].
    ///
    /// # Source
    /// `RestoreSlotFromDisk` in `src/backend/replication/slot.c` makes the same checks on a file of another layout.
    pub fn parse(file: &[u8]) -> Result<Self, SlotFileError> {
        let wrong_length = |_: OutOfBytes| SlotFileError::Length { found: file.len() };
        let (content, checksum) = file
            .split_last_chunk::<4>()
            .ok_or(SlotFileError::Length { found: file.len() })?;
        let mut reader = Reader::new(content);
        if reader.array().map_err(wrong_length)? != MAGIC {
            return Err(SlotFileError::Magic);
        }
        let version = reader
            .array()
            .map(u32::from_le_bytes)
            .map_err(wrong_length)?;
        // A file that was cut is cut, before its last bytes are taken for a checksum.
        let right_length = match version {
            VERSION => CONTENT_LEN,
            VERSION_WITH_XMIN => CONTENT_LEN_WITH_XMIN,
            _ => content.len(),
        };
        if content.len() != right_length {
            return Err(SlotFileError::Length { found: file.len() });
        }
        let (found, expected) = (u32::from_le_bytes(*checksum), crc32c::crc32c(content));
        if found != expected {
            return Err(SlotFileError::Checksum { found, expected });
        }
        if !(VERSION..=VERSION_WITH_XMIN).contains(&version) {
            return Err(SlotFileError::Version { found: version });
        }
        let unused = |reader: &mut Reader<'_>| {
            let offset = reader.offset();
            match reader.array::<4>().map_err(wrong_length)? {
                [0, 0, 0, 0] => Ok(()),
                _ => Err(SlotFileError::Unused { offset }),
            }
        };
        unused(&mut reader)?;
        let mut lsn = || -> Result<Option<Lsn>, SlotFileError> {
            let lsn = reader
                .array()
                .map(u64::from_le_bytes)
                .map_err(wrong_length)?;
            Ok(Lsn(lsn).valid())
        };
        let (restart_lsn, invalidated_at) = (lsn()?, lsn()?);
        let name_offset = reader.offset();
        let name: [u8; NAME_LEN] = reader.array().map_err(wrong_length)?;
        unused(&mut reader)?;
        let horizon = match version {
            VERSION_WITH_XMIN => xmins(&mut reader)
                .map_err(wrong_length)?
                .ok_or(SlotFileError::NoXmin)?,
            _ => XminHorizon::default(),
        };
        let mut parts = name.splitn(2, |&byte| byte == 0);
        let (name, padding) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        if padding.iter().any(|&byte| byte != 0) {
            return Err(SlotFileError::Unused {
                offset: name_offset + name.len(),
            });
        }
        let name = String::from_utf8_lossy(name).into_owned();
        validate_name(&name)?;
        Ok(Self {
            name,
            restart_lsn,
            invalidated_at,
            horizon,
        })
    }

    /// The content of the slot's file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let lsn = |lsn: Option<Lsn>| lsn.unwrap_or(Lsn::INVALID).0.to_le_bytes();
        let xid = |xid: Option<FullTransactionId>| {
            xid.map_or(0, |FullTransactionId(xid)| xid).to_le_bytes()
        };
        let has_xmin = self.horizon != XminHorizon::default();
        // A slot without feedback stays readable for programs that know no other.
        let version = if has_xmin { VERSION_WITH_XMIN } else { VERSION };
        let mut file = Vec::with_capacity(CONTENT_LEN_WITH_XMIN + 4);
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&version.to_le_bytes());
        file.extend_from_slice(&[0; 4]);
        file.extend_from_slice(&lsn(self.restart_lsn));
        file.extend_from_slice(&lsn(self.invalidated_at));
        file.extend(self.name.bytes().chain(std::iter::repeat(0)).take(NAME_LEN));
        file.extend_from_slice(&[0; 4]);
        if has_xmin {
            file.extend_from_slice(&xid(self.horizon.xmin));
            file.extend_from_slice(&xid(self.horizon.catalog_xmin));
        }
        let checksum = crc32c::crc32c(&file);
        file.extend_from_slice(&checksum.to_le_bytes());
        file
    }
}

/// Both numbers of a file that has them; `None` when they cannot be.
fn xmins(reader: &mut Reader<'_>) -> Result<Option<XminHorizon>, OutOfBytes> {
    let mut xid = || {
        reader
            .array()
            .map(u64::from_le_bytes)
            .map(FullTransactionId)
    };
    let numbers = [xid()?, xid()?];
    let [xmin, catalog_xmin] =
        numbers.map(|number| FullTransactionId::normal(number.epoch(), number.xid()));
    let is_written_so = |(number, read): (FullTransactionId, Option<FullTransactionId>)| {
        number.0 == 0 || read.is_some()
    };
    let horizon = XminHorizon { xmin, catalog_xmin };
    let can_be = numbers
        .into_iter()
        .zip([xmin, catalog_xmin])
        .all(is_written_so);
    Ok(Some(horizon).filter(|horizon| can_be && *horizon != XminHorizon::default()))
}

/// Fuzz target: the file as it is, and with magic, version and checksum put right, which a fuzzer does not find by itself.
pub(crate) fn fuzz(data: &[u8]) {
    let check = |file: &[u8]| {
        if let Ok(slot) = SavedSlot::parse(file) {
            assert_eq!(slot.encode(), file, "another file means the same slot");
        }
    };
    check(data);
    for (version, length) in [
        (VERSION, FILE_LEN),
        (VERSION_WITH_XMIN, CONTENT_LEN_WITH_XMIN + 4),
    ] {
        let mut file = data.to_vec();
        file.resize(length, 0);
        for (byte, right) in file
            .iter_mut()
            .zip(MAGIC.into_iter().chain(version.to_le_bytes()))
        {
            *byte = right;
        }
        if let Some((content, checksum)) = file.split_last_chunk_mut::<4>() {
            *checksum = crc32c::crc32c(content).to_le_bytes();
        }
        check(&file);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> SavedSlot {
        SavedSlot {
            name: "gp_walreceiver".to_owned(),
            restart_lsn: Some(Lsn(0x1_0300_0028)),
            invalidated_at: None,
            horizon: XminHorizon::default(),
        }
    }

    fn with_xmin() -> SavedSlot {
        SavedSlot {
            horizon: XminHorizon {
                xmin: FullTransactionId::normal(2, 700),
                catalog_xmin: None,
            },
            ..example()
        }
    }

    fn with_checksum(mut content: Vec<u8>) -> Vec<u8> {
        let checksum = crc32c::crc32c(&content);
        content.extend_from_slice(&checksum.to_le_bytes());
        content
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let file = example().encode();
        assert_eq!(file.len(), FILE_LEN);
        assert_eq!(&file[..16], b"walslot\n\x01\0\0\0\0\0\0\0");
        assert_eq!(&file[16..32], b"\x28\0\0\x03\x01\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&file[32..47], b"gp_walreceiver\0");
        assert!(file[47..100].iter().all(|&byte| byte == 0));
        assert_eq!(with_checksum(file[..100].to_vec()), file);
        let with_xmin = with_xmin().encode();
        assert_eq!(with_xmin.len(), 120);
        assert_eq!(with_xmin[8], 2);
        assert_eq!(with_xmin[9..100], file[9..100]);
        assert_eq!(
            &with_xmin[100..116],
            b"\xBC\x02\0\0\x02\0\0\0\0\0\0\0\0\0\0\0"
        );
        assert_eq!(with_checksum(with_xmin[..116].to_vec()), with_xmin);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for good in [example().encode(), with_xmin().encode()] {
            for at in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.clone();
                    bad[at] ^= 1 << bit;
                    assert!(SavedSlot::parse(&bad).is_err(), "bit {bit} of byte {at}");
                }
                assert!(SavedSlot::parse(&good[..at]).is_err(), "cut to {at}");
            }
        }
        let good = example().encode();
        let longer = [good.as_slice(), b"\0"].concat();
        assert_eq!(
            SavedSlot::parse(&longer),
            Err(SlotFileError::Length { found: 105 })
        );
        assert_eq!(
            SavedSlot::parse(&good[..50]),
            Err(SlotFileError::Length { found: 50 })
        );
    }

    #[test]
    fn what_has_a_right_checksum_is_checked_too() {
        let change = |at: usize, to: &[u8]| {
            let mut content = example().encode()[..100].to_vec();
            content[at..at + to.len()].copy_from_slice(to);
            SavedSlot::parse(&with_checksum(content)).unwrap_err()
        };
        assert_eq!(change(0, b"W"), SlotFileError::Magic);
        assert_eq!(change(8, &[2]), SlotFileError::Length { found: 104 });
        assert_eq!(change(8, &[3]), SlotFileError::Version { found: 3 });
        assert_eq!(change(13, &[1]), SlotFileError::Unused { offset: 12 });
        assert_eq!(change(90, b"x"), SlotFileError::Unused { offset: 46 });
        assert_eq!(change(96, b"x"), SlotFileError::Unused { offset: 96 });
        assert!(matches!(
            change(32, b"/"),
            SlotFileError::Name(SlotNameError::InvalidCharacter(_))
        ));
        assert!(matches!(change(32, b"\xFF"), SlotFileError::Name(_)));
        assert!(matches!(
            change(32, &[b'x'; 64]),
            SlotFileError::Name(SlotNameError::TooLong(_))
        ));
        assert!(matches!(
            change(32, &[0; 64]),
            SlotFileError::Name(SlotNameError::TooShort)
        ));
        for no_xmin in [[0; 8], [1, 0, 0, 0, 2, 0, 0, 0]] {
            let mut content = with_xmin().encode()[..116].to_vec();
            content[100..108].copy_from_slice(&no_xmin);
            let parsed = SavedSlot::parse(&with_checksum(content));
            assert_eq!(parsed, Err(SlotFileError::NoXmin));
        }
        // A newer format may have any length.
        let newer = with_checksum(b"walslot\n\x03\0\0\0and more".to_vec());
        assert_eq!(
            SavedSlot::parse(&newer),
            Err(SlotFileError::Version { found: 3 })
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(
            name in "[a-z0-9_]{1,63}", restart: u64, invalidated: u64, xmin in any::<Option<(u32, u32)>>(),
            catalog_xmin in any::<Option<(u32, u32)>>(),
        ) {
            let xid = |number: Option<(u32, u32)>| number.and_then(|(epoch, xid)| FullTransactionId::normal(epoch, xid));
            let slot = SavedSlot {
                name,
                restart_lsn: Lsn(restart).valid(),
                invalidated_at: Lsn(invalidated).valid(),
                horizon: XminHorizon { xmin: xid(xmin), catalog_xmin: xid(catalog_xmin) },
            };
            prop_assert_eq!(SavedSlot::parse(&slot.encode()), Ok(slot));
        }

        #[test]
        fn the_fuzz_target_holds(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz(&data);
        }
    }
}
