//! CRC-32C as WAL records use it.
//!
//! A record's checksum covers its body first and the header's 20 bytes before `xl_crc` last, so it can be taken piece
//! by piece while the body arrives.

use crate::wal::record::RecordHeader;

/// Checksum of a record's body, taken in pieces.
///
/// # Source
/// `COMP_CRC32C` in `src/include/port/pg_crc32c.h`; the order is `ValidXLogRecord`'s in
/// `src/backend/access/transam/xlogreader.c`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordCrc(u32);

impl RecordCrc {
    /// Adds the next bytes of the body.
    #[inline]
    pub fn update(&mut self, body: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, body);
    }

    /// The checksum, once the whole body was added: `header` is the record's first 24 bytes.
    #[inline]
    #[must_use]
    pub fn finish(self, header: &[u8; RecordHeader::LEN]) -> u32 {
        let [covered @ .., _, _, _, _] = header;
        crc32c::crc32c_append(self.0, covered)
    }
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
}
