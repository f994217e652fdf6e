//! CRC-32C as WAL records use it.
//!
//! A record's checksum covers its body first and the header's 20 bytes before `xl_crc` last, so it can be taken piece
//! by piece while the body arrives.

use crc_fast::{CrcAlgorithm, Digest};

use crate::wal::record::RecordHeader;

/// Checksum of a record's body, taken in pieces.
///
/// To make one takes longer than to checksum a small record, so a loop over records makes one and calls
/// [`RecordCrc::reset`].
///
/// # Source
/// `COMP_CRC32C` in `src/include/port/pg_crc32c.h`; the order is `ValidXLogRecord`'s in
/// `src/backend/access/transam/xlogreader.c`.
#[derive(Clone, Copy, Debug)]
pub struct RecordCrc(Digest);

impl RecordCrc {
    /// Begins anew, with the next record.
    #[inline]
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// Adds the next bytes of the body.
    #[inline]
    pub fn update(&mut self, body: &[u8]) {
        self.0.update(body);
    }

    /// The checksum, once the whole body was added: `header` is the record's first 24 bytes.
    #[inline]
    #[must_use]
    pub fn finish(mut self, header: &[u8; RecordHeader::LEN]) -> u32 {
        self.finish_in_place(header)
    }

    /// As [`RecordCrc::finish`], without a copy; what is left in this value is good for [`RecordCrc::reset`] only.
    #[inline]
    pub(crate) fn finish_in_place(&mut self, header: &[u8; RecordHeader::LEN]) -> u32 {
        let [covered @ .., _, _, _, _] = header;
        self.0.update(covered);
        low_half(self.0.finalize())
    }
}

impl Default for RecordCrc {
    fn default() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }
}

/// The checksum in what the general interface for algorithms of up to 64 bits gives.
#[inline]
fn low_half(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let body: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let header = [7; RecordHeader::LEN];
        let mut whole = RecordCrc::default();
        whole.update(&body);
        let mut pieces = RecordCrc::default();
        body.chunks(33).for_each(|piece| pieces.update(piece));
        assert_eq!(whole.finish(&header), pieces.finish(&header));
        let mut other = header;
        other[20..].fill(0);
        assert_eq!(
            whole.finish(&header),
            whole.finish(&other),
            "xl_crc itself is not covered"
        );
        other[19] ^= 1;
        assert_ne!(whole.finish(&header), whole.finish(&other));
    }

    #[test]
    fn empty_body_and_known_value() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn equals_another_implementation_at_every_length_and_alignment() {
        let header = [0x5A; RecordHeader::LEN];
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i * i % 251) as u8).collect();
        let mut crc = RecordCrc::default();
        let lengths = (0..1200)
            .chain((1200..8300).step_by(61))
            .chain([16_384, 19_900]);
        for (number, length) in lengths.enumerate() {
            let body = &bytes[number % 64..number % 64 + length];
            crc.reset();
            crc.update(body);
            let other = crc32c::crc32c_append(crc32c::crc32c(body), &header[..20]);
            assert_eq!(crc.finish(&header), other, "{length} bytes");
            let (front, back) = body.split_at(length / 3);
            crc.reset();
            crc.update(front);
            crc.update(back);
            assert_eq!(
                crc.finish_in_place(&header),
                other,
                "{length} bytes in two pieces"
            );
        }
    }
}
