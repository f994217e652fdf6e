//! Checksums of data pages.
//!
//! The page is read as rows of 32 little-endian numbers, with zeros for the checksum field itself. Each column has a hash of its own
//! (FNV-1a with a shift mixed in), so a processor takes many at once; at the end they are folded together with the block's number,
//! which finds pages that are whole but in the wrong place.
//!
//! # Source
//! `src/include/storage/checksum_impl.h`.

use super::Page;
use crate::types::BlockNumber;

/// Columns.
const LANES: usize = 32;
/// Bytes of a row.
const ROW_LEN: usize = LANES * 4;
/// Multiplier of the hash (`FNV_PRIME`).
const PRIME: u32 = 16_777_619;
/// Where the page has its checksum: offset and length in bytes.
const FIELD: (usize, usize) = (8, 2);
/// What each column begins with (`checksumBaseOffsets`).
const BASE: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

impl<B: AsRef<[u8]>> Page<B> {
    /// What the page's checksum must be at this place. The stored one plays no part.
    ///
    /// A page that was never written ([`Page::is_new`]) has none.
    #[must_use]
    pub fn computed_checksum(&self, block: BlockNumber) -> u16 {
        let (first, rest) = self
            .bytes()
            .split_first_chunk::<ROW_LEN>()
            .map_or(([0; ROW_LEN], &[][..]), |(first, rest)| (*first, rest));
        let mut first = first;
        if let Some(field) = first.get_mut(FIELD.0..FIELD.0 + FIELD.1) {
            field.fill(0);
        }
        let mut sums = BASE;
        add_row(&mut sums, &first);
        let (rows, _) = rest.as_chunks::<ROW_LEN>();
        for row in rows {
            add_row(&mut sums, row);
        }
        add_row(&mut sums, &[0; ROW_LEN]);
        add_row(&mut sums, &[0; ROW_LEN]);
        let folded = sums.iter().fold(block, |all, sum| all ^ sum);
        let [a, b, ..] = (folded % 65_535 + 1).to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// Whether the page is as it was written: its checksum is right, or it was never written and is all zeros.
    ///
    /// # Source
    /// `PageIsVerified` in `src/backend/storage/page/bufpage.c`.
    #[must_use]
    pub fn is_verified(&self, block: BlockNumber) -> bool {
        if self.is_new() {
            return self.bytes().iter().all(|byte| *byte == 0);
        }
        self.checksum() == self.computed_checksum(block)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Page<B> {
    /// Gives the page the checksum that it must have at this place, as before it is written there. A page that is new gets none.
    ///
    /// # Source
    /// `PageSetChecksumInplace` in `src/backend/storage/page/bufpage.c`.
    pub fn stamp_checksum(&mut self, block: BlockNumber) {
        if !self.is_new() {
            self.set_checksum(self.computed_checksum(block));
        }
    }
}

#[inline(always)]
fn add_row(sums: &mut [u32; LANES], row: &[u8; ROW_LEN]) {
    let (numbers, _) = row.as_chunks::<4>();
    for (sum, number) in sums.iter_mut().zip(numbers) {
        let mixed = *sum ^ u32::from_le_bytes(*number);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}
