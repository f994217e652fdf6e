//! Full-page images: a page without its hole, possibly compressed.

use std::ops::Range;

use thiserror::Error;

use crate::dialect::{Dialect, ImageBits};
use crate::lsn::PageSize;
use crate::read::Reader;
use crate::wal::fault::RecordFault;
use crate::wal::pglz::{self, PglzError};

/// How an image is compressed.
///
/// # Source
/// `BKPIMAGE_COMPRESS_*` in `src/include/access/xlogrecord.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageCompression {
    /// PostgreSQL's own.
    Pglz,
    /// LZ4 block format, since 15.
    Lz4,
    /// Zstandard frame, since 15.
    Zstd,
}

impl ImageCompression {
    /// The name as `wal_compression` and `pg_waldump` have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pglz => "pglz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// A page as a record carries it. The hole, a run of zeros in the middle of the page, is left out.
///
/// # Source
/// `XLogRecordBlockImageHeader` in `src/include/access/xlogrecord.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Where the hole begins, in bytes from the page's start; 0 when there is none.
    pub hole_offset: u16,
    /// Length of the hole in bytes.
    pub hole_length: u16,
    /// How it is compressed.
    pub compression: Option<ImageCompression>,
    /// Whether redo restores the page from it; otherwise it is only there to check redo against.
    pub apply: bool,
    /// Size of the page in bytes.
    pub block_size: PageSize,
    len: u16,
    bytes: &'a [u8],
}

/// An image that gives no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// The caller's buffer is not one page.
    #[error("a page of {expected} bytes does not fit a buffer of {found}")]
    BufferSize {
        /// Size of the buffer in bytes.
        found: usize,
        /// The block size in bytes.
        expected: usize,
    },
    /// Damaged pglz data.
    #[error("page image: {0}")]
    Pglz(#[from] PglzError),
    /// Data that the method's decoder refuses, or that gives another length than expected.
    #[error("page image of {len} bytes does not decompress to {expected} bytes with {}", compression.name())]
    Decompress {
        /// The method.
        compression: ImageCompression,
        /// Compressed bytes.
        len: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// This build cannot decompress.
    #[error("page image is compressed with {}, which this build lacks: enable the `compression` feature", compression.name())]
    Unsupported {
        /// The method.
        compression: ImageCompression,
    },
}

/// `BKPIMAGE_HAS_HOLE`, in every version.
const HAS_HOLE: u8 = 0x01;

impl Image<'static> {
    /// Reads and checks the header of an image; its bytes come later in the record.
    // One record in twenty has an image; the others' way should not be longer for it.
    #[inline(never)]
    pub(crate) fn parse_header(
        reader: &mut Reader<'_>,
        dialect: &Dialect,
    ) -> Result<Self, RecordFault> {
        let offset = reader.offset();
        let len = reader.u16_le()?;
        let hole_offset = reader.u16_le()?;
        let info = reader.u8()?;
        let (apply, compression) = flags(info, dialect);
        let has_hole = info & HAS_HOLE != 0;
        let block_size = dialect.block_size.bytes_u32();
        let hole_length = match compression {
            Some(_) if has_hole => u32::from(reader.u16_le()?),
            Some(_) => 0,
            // Too long an image is caught below, as its hole cannot be 0.
            None => block_size.checked_sub(u32::from(len)).unwrap_or(u32::MAX),
        };
        let full = u32::from(len) == block_size;
        let hole_is_right = if has_hole {
            hole_offset != 0 && hole_length != 0 && !full
        } else {
            hole_offset == 0 && hole_length == 0
        };
        let fits = u32::from(hole_offset).saturating_add(hole_length) <= block_size;
        let length_is_right = match compression {
            Some(_) => u32::from(len) < block_size,
            None => has_hole || full,
        };
        match u16::try_from(hole_length) {
            Ok(hole_length) if hole_is_right && fits && length_is_right => Ok(Self {
                hole_offset,
                hole_length,
                compression,
                apply,
                block_size: dialect.block_size,
                len,
                bytes: &[],
            }),
            _ => Err(RecordFault::Image {
                offset,
                info,
                len,
                hole_offset,
                hole_length,
                block_size,
            }),
        }
    }

    /// The image with its bytes.
    pub(crate) fn with_bytes(self, bytes: &[u8]) -> Image<'_> {
        Image { bytes, ..self }
    }
}

/// Whether the image is to be applied, and how it is compressed.
fn flags(info: u8, dialect: &Dialect) -> (bool, Option<ImageCompression>) {
    match dialect.image_bits() {
        ImageBits::Pglz => (
            info & 0x04 != 0,
            (info & 0x02 != 0).then_some(ImageCompression::Pglz),
        ),
        ImageBits::Methods => {
            let compression = match info {
                _ if info & 0x04 != 0 => Some(ImageCompression::Pglz),
                _ if info & 0x08 != 0 => Some(ImageCompression::Lz4),
                _ if info & 0x10 != 0 => Some(ImageCompression::Zstd),
                _ => None,
            };
            (info & 0x02 != 0, compression)
        }
    }
}

impl<'a> Image<'a> {
    /// An image whose stored form is `bytes`: the page without `hole` (empty for none), compressed with this method. Redo
    /// applies it. `None` when there are more bytes than an image can have; other contradictions are found when it is
    /// encoded or restored.
    #[must_use]
    pub fn stored(
        bytes: &'a [u8],
        hole: Range<u16>,
        compression: Option<ImageCompression>,
        block_size: PageSize,
    ) -> Option<Self> {
        Some(Self {
            hole_offset: hole.start,
            hole_length: hole.end.saturating_sub(hole.start),
            compression,
            apply: true,
            block_size,
            len: u16::try_from(bytes.len()).ok()?,
            bytes,
        })
    }

    /// Appends the header that [`Image::parse_header`] reads. A method that the dialect lacks is written as pglz.
    pub(crate) fn put_header(&self, dialect: &Dialect, out: &mut Vec<u8>) {
        let has_hole = self.hole_length > 0;
        let (apply, compressed) = match (dialect.image_bits(), self.compression) {
            (ImageBits::Pglz, Some(_)) => (0x04, 0x02),
            (ImageBits::Pglz, None) => (0x04, 0),
            (ImageBits::Methods, None) => (0x02, 0),
            (ImageBits::Methods, Some(ImageCompression::Pglz)) => (0x02, 0x04),
            (ImageBits::Methods, Some(ImageCompression::Lz4)) => (0x02, 0x08),
            (ImageBits::Methods, Some(ImageCompression::Zstd)) => (0x02, 0x10),
        };
        let hole = if has_hole { HAS_HOLE } else { 0 };
        let apply = if self.apply { apply } else { 0 };
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.hole_offset.to_le_bytes());
        out.push(hole | apply | compressed);
        if has_hole && compressed != 0 {
            out.extend_from_slice(&self.hole_length.to_le_bytes());
        }
    }

    /// Bytes that the image takes in the record.
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty image is no different"
    )]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// The bytes as stored: without hole, possibly compressed.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Writes the page to `page`, which must be of the block size. No more than that is ever written.
    ///
    /// # Errors
    /// [`ImageError`] when the buffer has another size or the data does not decompress to the page; then the buffer's
    /// content is undefined.
    ///
    /// # Source
    /// `RestoreBlockImage` in `src/backend/access/transam/xlogreader.c`.
    pub fn restore_into(&self, page: &mut [u8]) -> Result<(), ImageError> {
        let expected = usize::try_from(self.block_size.bytes_u32()).unwrap_or(usize::MAX);
        let wrong_size = ImageError::BufferSize {
            found: page.len(),
            expected,
        };
        if page.len() != expected {
            return Err(wrong_size);
        }
        let hole_start = usize::from(self.hole_offset);
        let hole_end = hole_start + usize::from(self.hole_length);
        let stored = expected.saturating_sub(usize::from(self.hole_length));
        let Some(compression) = self.compression else {
            return self.copy_into(page, hole_start..hole_end).ok_or(wrong_size);
        };
        let packed = page.get_mut(..stored).ok_or(wrong_size)?;
        match compression {
            ImageCompression::Pglz => pglz::decompress(self.bytes, packed)?,
            compression => self.decompress(compression, packed)?,
        }
        if hole_end > hole_start {
            page.copy_within(hole_start..stored, hole_end);
            page.get_mut(hole_start..hole_end)
                .ok_or(wrong_size)?
                .fill(0);
        }
        Ok(())
    }

    /// Copies what is before the hole and what is behind it to where they belong.
    fn copy_into(&self, page: &mut [u8], hole: Range<usize>) -> Option<()> {
        let (before, behind) = self.bytes.split_at_checked(hole.start)?;
        page.get_mut(..hole.start)?.copy_from_slice(before);
        let rest = page.get_mut(hole.end..)?;
        if rest.len() != behind.len() {
            return None;
        }
        rest.copy_from_slice(behind);
        page.get_mut(hole)?.fill(0);
        Some(())
    }

    #[cfg(feature = "compression")]
    fn decompress(
        &self,
        compression: ImageCompression,
        output: &mut [u8],
    ) -> Result<(), ImageError> {
        use std::cell::RefCell;
        thread_local! {
            // A context of some 150 kB, too dear to make for each page.
            static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
        }
        let expected = output.len();
        let written = match compression {
            ImageCompression::Lz4 => lz4_flex::block::decompress_into(self.bytes, output).ok(),
            ImageCompression::Zstd => ZSTD.with_borrow_mut(|context| {
                if context.is_none() {
                    *context = zstd::bulk::Decompressor::new().ok();
                }
                context
                    .as_mut()?
                    .decompress_to_buffer(self.bytes, output)
                    .ok()
            }),
            ImageCompression::Pglz => pglz::decompress(self.bytes, output).ok().map(|()| expected),
        };
        if written == Some(expected) {
            Ok(())
        } else {
            Err(ImageError::Decompress {
                compression,
                len: self.bytes.len(),
                expected,
            })
        }
    }

    #[cfg(not(feature = "compression"))]
    fn decompress(&self, compression: ImageCompression, _: &mut [u8]) -> Result<(), ImageError> {
        Err(ImageError::Unsupported { compression })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::PgMajor;

    fn image<'a>(major: PgMajor, header: &[u8], bytes: &'a [u8]) -> Result<Image<'a>, RecordFault> {
        let dialect = Dialect::with_default_sizes(major);
        Image::parse_header(&mut Reader::new(header), &dialect).map(|image| image.with_bytes(bytes))
    }

    fn header(len: u16, hole_offset: u16, info: u8) -> Vec<u8> {
        [&len.to_le_bytes()[..], &hole_offset.to_le_bytes(), &[info]].concat()
    }

    #[test]
    fn holes_are_filled_with_zeros() {
        let bytes: Vec<u8> = (1..=100).collect();
        let image = image(PgMajor::V15, &header(100, 40, 0x03), &bytes).unwrap();
        let mut page = vec![0xFF; 8192];
        image.restore_into(&mut page).unwrap();
        assert_eq!(page[..40], bytes[..40]);
        assert!(page[40..8132].iter().all(|&b| b == 0));
        assert_eq!(page[8132..], bytes[40..]);
        assert!(image.apply);
        assert!(matches!(
            image.restore_into(&mut page[..8191]),
            Err(ImageError::BufferSize { .. })
        ));
    }

    #[test]
    fn contradictions_are_refused() {
        for (len, hole_offset, info) in [
            (8192, 0, 0x01),  // a hole of no length
            (100, 0, 0x01),   // a hole at 0
            (8192, 40, 0x00), // no hole, but an offset
            (100, 0, 0x00),   // no hole, but too short
            (8193, 0, 0x00),  // too long
            (8192, 0, 0x04),  // compressed, but not smaller
            (100, 101, 0x01), // the hole ends past the page
        ] {
            let found = image(PgMajor::V15, &header(len, hole_offset, info), &[]);
            assert!(
                matches!(found, Err(RecordFault::Image { .. })),
                "{len} {hole_offset} {info}"
            );
        }
        assert!(image(PgMajor::V15, &header(8192, 0, 0x02), &[]).is_ok());
        assert!(image(PgMajor::V15, &header(8191, 1, 0x01), &[]).is_ok());
    }

    #[test]
    fn bits_moved_in_15() {
        let old = image(PgMajor::V14, &header(100, 0, 0x02), &[]).unwrap();
        assert_eq!(
            (old.compression, old.apply),
            (Some(ImageCompression::Pglz), false)
        );
        let new = image(PgMajor::V15, &header(100, 0, 0x04), &[]).unwrap();
        assert_eq!(
            (new.compression, new.apply),
            (Some(ImageCompression::Pglz), false)
        );
        assert_eq!(
            image(PgMajor::V14, &header(8192, 0, 0x04), &[])
                .unwrap()
                .compression,
            None
        );
    }

    #[cfg(feature = "compression")]
    #[test]
    fn every_method_restores_and_damage_is_refused() {
        let mut page: Vec<u8> = (0..8192u32).map(|i| (i / 7 % 251) as u8).collect();
        page[100..300].fill(0);
        let packed = [&page[..100], &page[300..]].concat();
        for (info, bytes) in [
            (0x0Bu8, lz4_flex::block::compress(&packed)),
            (0x13, zstd::bulk::compress(&packed, 1).unwrap()),
        ] {
            let len = u16::try_from(bytes.len()).unwrap();
            let header = [header(len, 100, info), 200u16.to_le_bytes().to_vec()].concat();
            let mut restored = vec![0xFF; 8192];
            image(PgMajor::V15, &header, &bytes)
                .unwrap()
                .restore_into(&mut restored)
                .unwrap();
            assert_eq!(restored, page);
            let cut = image(PgMajor::V15, &header, &bytes[..bytes.len() / 2])
                .unwrap()
                .restore_into(&mut restored);
            assert!(matches!(cut, Err(ImageError::Decompress { .. })));
        }
    }
}
