//! Fuzz targets of the record decoder and of page images.

use crate::dialect::{Dialect, PgMajor};
use crate::lsn::{Lsn, SegmentSize};
use crate::read::Reader;
use crate::wal::image::Image;
use crate::wal::page::LongPageHeader;
use crate::wal::record::RecordHeader;
use crate::wal::{DecodeError, EndProbe, RecordBody, WalDecoder};
use crate::{PageSize, wal};

/// A stream of WAL. The first byte chooses the length of the chunks in which it is fed a second time, which must give
/// the same. Checksums are made right first, so that what lies behind them is reached.
pub fn decode(data: &[u8]) {
    let Some((&chunk, data)) = data.split_first() else {
        return;
    };
    let fallback = Dialect {
        segment_size: SegmentSize::MIN,
        ..Dialect::with_default_sizes(PgMajor::V15)
    };
    let (dialect, start) = match LongPageHeader::parse(&mut Reader::new(data)) {
        Ok(first) => (
            first.dialect(PageSize::DEFAULT).unwrap_or(fallback),
            first.page.address,
        ),
        Err(_) => (fallback, Lsn(0x0010_0000)),
    };
    let mut data = data.to_vec();
    // Each round repairs the checksum at which the one before stopped.
    for _ in 0..16 {
        let mut decoder = WalDecoder::new(dialect, start);
        let (_, error) = run(&mut decoder, &data, usize::MAX);
        let Some(DecodeError::Record {
            lsn,
            fault: wal::fault::RecordFault::Crc { computed, .. },
            ..
        }) = error
        else {
            break;
        };
        let at = usize::try_from(lsn.saturating_sub(start)).unwrap_or(usize::MAX);
        match data.get_mut(at.saturating_add(20)..at.saturating_add(24)) {
            Some(place) => place.copy_from_slice(&computed.to_le_bytes()),
            None => break,
        }
    }
    let mut whole = WalDecoder::new(dialect, start);
    let mut pieces = WalDecoder::new(dialect, start);
    let whole_result = run(&mut whole, &data, usize::MAX);
    assert_eq!(
        whole_result,
        run(&mut pieces, &data, usize::from(chunk) + 1)
    );
    assert_eq!(whole.valid_end(), pieces.valid_end());
    let mut probe = EndProbe::new(&whole, None);
    probe.page(
        probe.first_page(),
        data.chunks(8192).last().unwrap_or_default(),
    );
    _ = probe.verdict();
}

type Found = (Vec<(Lsn, Lsn, RecordHeader, usize)>, Option<DecodeError>);

fn run(decoder: &mut WalDecoder, data: &[u8], chunk: usize) -> Found {
    let mut records = Vec::new();
    for piece in data.chunks(chunk) {
        let mut feed = decoder.feed(piece);
        loop {
            match feed.next_record() {
                Ok(Some(record)) => {
                    assert_eq!(
                        record.bytes().len(),
                        usize::try_from(record.header.total_len).unwrap()
                    );
                    let mut page = vec![0; 8192];
                    let blocks = record.block_refs().map_or(0, |blocks| {
                        blocks
                            .map(|block| {
                                block
                                    .image
                                    .map(|image| image.restore_into(&mut page).is_ok())
                            })
                            .count()
                    });
                    records.push((record.start_lsn, record.end_lsn, record.header, blocks));
                }
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
        }
    }
    (records, None)
}

/// One page image: the first byte chooses the version, then comes the image's header, then its bytes.
pub fn image(data: &[u8]) {
    let Some((&version, data)) = data.split_first() else {
        return;
    };
    let major = PgMajor::ALL[usize::from(version) % PgMajor::ALL.len()];
    let dialect = Dialect::with_default_sizes(major);
    let mut reader = Reader::new(data);
    if let Ok(image) = Image::parse_header(&mut reader, &dialect) {
        let mut page = vec![0xFF; 8192];
        let image = image.with_bytes(reader.rest());
        if image.restore_into(&mut page).is_ok() {
            let hole = usize::from(image.hole_offset)..;
            assert!(
                page[hole]
                    .iter()
                    .take(image.hole_length.into())
                    .all(|byte| *byte == 0)
            );
        }
    }
    // The body of a record may hold such an image, and many other things.
    if let Ok(body) = RecordBody::parse(data, &dialect) {
        let stored: usize = body
            .block_refs()
            .map(|block| block.data.len() + block.image.map_or(0, |image| image.bytes().len()))
            .sum();
        assert!(stored + body.main_data.len() <= data.len());
    }
}
