//! Making page images: leaving out the hole, compressing.

use std::ops::Range;

use crate::dialect::Dialect;
use crate::wal::encode::error::EncodeError;
use crate::wal::image::{Image, ImageCompression};
use crate::wal::pglz;

/// The hole of a page of the standard layout: from the end of its line pointers to the start of its tuples. Empty when the
/// header gives none, as on a page of zeros.
///
/// # Source
/// `XLogRecordAssemble` in `src/backend/access/transam/xloginsert.c` (`REGBUF_STANDARD`); `PageHeaderData` in
/// `src/include/storage/bufpage.h`.
#[must_use]
pub fn standard_hole(page: &[u8]) -> Range<u16> {
    const HEADER_LEN: u16 = 24;
    let field = |at: usize| {
        let bytes = page.get(at..)?.first_chunk::<2>()?;
        Some(u16::from_le_bytes(*bytes))
    };
    match (field(12), field(14)) {
        (Some(lower), Some(upper))
            if lower >= HEADER_LEN && upper > lower && usize::from(upper) <= page.len() =>
        {
            lower..upper
        }
        _ => 0..0,
    }
}

/// Makes page images, in buffers that it keeps from one to the next.
#[derive(Default)]
pub struct ImagePacker {
    packed: Vec<u8>,
    compressed: Vec<u8>,
    #[cfg(feature = "compression")]
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl std::fmt::Debug for ImagePacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImagePacker").finish_non_exhaustive()
    }
}

impl ImagePacker {
    /// Packs a page without its hole, of which nothing is stored but the place; redo will apply the image unless the
    /// caller takes [`Image::apply`] back. When compressing would not make the image shorter, or this build cannot, it is
    /// stored as it is, as a server does.
    ///
    /// # Errors
    /// [`EncodeError::Page`] when the page is not of the dialect's block size, or the hole not within it.
    ///
    /// # Source
    /// `XLogCompressBackupBlock` in `src/backend/access/transam/xloginsert.c`.
    pub fn pack(
        &mut self,
        page: &[u8],
        hole: Range<u16>,
        compression: Option<ImageCompression>,
        dialect: &Dialect,
    ) -> Result<Image<'_>, EncodeError> {
        let (start, end) = (usize::from(hole.start), usize::from(hole.end));
        let block_size = dialect.block_size.bytes_u32();
        let wrong = EncodeError::Page {
            len: page.len(),
            hole_start: start,
            hole_end: end,
            block_size,
        };
        let (Some(front), Some(back)) = (page.get(..start), page.get(end..)) else {
            return Err(wrong);
        };
        if end < start || u32::try_from(page.len()) != Ok(block_size) {
            return Err(wrong);
        }
        self.packed.clear();
        self.packed.extend_from_slice(front);
        self.packed.extend_from_slice(back);
        // The length of the hole has to be stored too, and the result must be shorter all the same.
        let extra = if end > start { 2 } else { 0 };
        let compressed = compression
            .filter(|method| self.compress(*method))
            .filter(|_| self.compressed.len() + extra < self.packed.len());
        let bytes = match compressed {
            Some(_) => &self.compressed,
            None => &self.packed,
        };
        let hole = if end > start { hole } else { 0..0 };
        Image::stored(bytes, hole, compressed, dialect.block_size).ok_or(wrong)
    }

    /// Compresses `packed` into `compressed`; gives whether there is a result.
    fn compress(&mut self, method: ImageCompression) -> bool {
        match method {
            ImageCompression::Pglz => pglz::compress(&self.packed, &mut self.compressed),
            ImageCompression::Lz4 => self.lz4(),
            ImageCompression::Zstd => self.zstd(),
        }
    }

    #[cfg(feature = "compression")]
    fn lz4(&mut self) -> bool {
        let most = lz4_flex::block::get_maximum_output_size(self.packed.len());
        self.compressed.resize(most, 0);
        match lz4_flex::block::compress_into(&self.packed, &mut self.compressed) {
            Ok(len) => {
                self.compressed.truncate(len);
                true
            }
            Err(_) => false,
        }
    }

    #[cfg(feature = "compression")]
    fn zstd(&mut self) -> bool {
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL).ok();
        }
        self.compressed.clear();
        self.compressed
            .reserve(zstd::zstd_safe::compress_bound(self.packed.len()));
        let Some(zstd) = &mut self.zstd else {
            return false;
        };
        zstd.compress_to_buffer(&self.packed, &mut self.compressed)
            .is_ok()
    }

    #[cfg(not(feature = "compression"))]
    const fn lz4(&self) -> bool {
        false
    }

    #[cfg(not(feature = "compression"))]
    const fn zstd(&self) -> bool {
        false
    }
}
