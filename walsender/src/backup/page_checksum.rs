//! Checksums of data pages: 32 sums of FNV-1a's kind side by side, folded into 16 bits.
//!
//! # Source
//! `pg_checksum_page` in `src/include/storage/checksum_impl.h`.

use walstream::Lsn;

/// Sums that are taken side by side.
const SUMS: usize = 32;
/// Bytes that go into all sums in one round.
const ROUND: usize = SUMS * 4;
const PRIME: u32 = 16_777_619;

/// Where each sum starts (`checksumBaseOffsets`).
const BASE_OFFSETS: [u32; SUMS] = [
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

/// Offset of `pd_checksum` in a page.
const CHECKSUM_OFFSET: usize = 8;
/// Offset of `pd_upper`, which is 0 in a page that was never used.
const UPPER_OFFSET: usize = 14;

/// A page whose checksum is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) computed: u16,
    pub(super) stored: u16,
}

/// The checksum of a page at this place in its relation, where that has no damage to hide: the page was used, and was not
/// changed since `start_lsn`, when it may be half written, and will be replaced by replay.
pub(super) fn check(page: &[u8], block: u32, start_lsn: Lsn) -> Option<Mismatch> {
    let lsn = u64::from(u32_at(page, 0)?) << 32 | u64::from(u32_at(page, 4)?);
    if u16_at(page, UPPER_OFFSET)? == 0 || Lsn(lsn) >= start_lsn {
        return None;
    }
    let (computed, stored) = (checksum(page, block), u16_at(page, CHECKSUM_OFFSET)?);
    (computed != stored).then_some(Mismatch { computed, stored })
}

/// The checksum of a page, whatever it holds in the checksum's place.
fn checksum(page: &[u8], block: u32) -> u16 {
    let mut sums = BASE_OFFSETS;
    let (rounds, _) = page.as_chunks::<ROUND>();
    for (index, round) in rounds.iter().enumerate() {
        let mut round = *round;
        if index == 0
            && let Some(stored) = round.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2)
        {
            stored.fill(0);
        }
        let (words, _) = round.as_chunks::<4>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = mix(*sum, u32::from_le_bytes(*word));
        }
    }
    let folded = sums
        .into_iter()
        .fold(0, |result, sum| result ^ mix(mix(sum, 0), 0));
    // Never 0.
    u16::try_from((folded ^ block) % 65_535 + 1).unwrap_or(u16::MAX)
}

const fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

fn u16_at(page: &[u8], offset: usize) -> Option<u16> {
    let bytes = page.get(offset..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn u32_at(page: &[u8], offset: usize) -> Option<u32> {
    let bytes = page.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(lsn: u32) -> Vec<u8> {
        let mut page: Vec<u8> = (0..8192_u32)
            .map(|n| n.wrapping_mul(31).to_le_bytes()[1])
            .collect();
        page[..4].fill(0);
        page[4..8].copy_from_slice(&lsn.to_le_bytes());
        page
    }

    #[test]
    fn a_page_that_may_be_half_written_is_not_judged() {
        let start = Lsn(100);
        let mut page = page(99);
        let mismatch = check(&page, 7, start).unwrap();
        assert_eq!(mismatch.computed, checksum(&page, 7));
        page[8..10].copy_from_slice(&mismatch.computed.to_le_bytes());
        assert_eq!(check(&page, 7, start), None);
        assert!(
            check(&page, 8, start).is_some(),
            "the page of another block"
        );
        page[5000] ^= 1;
        assert!(check(&page, 7, start).is_some());
        assert_eq!(check(&page, 7, Lsn(99)), None, "changed since");
        page[14..16].fill(0);
        assert_eq!(check(&page, 7, start), None, "never used");
        assert_eq!(check(&page[..10], 7, start), None);
    }
}
