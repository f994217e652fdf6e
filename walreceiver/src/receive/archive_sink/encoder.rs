//! [`Encoder`]: one compressor for a file, of whichever kind.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::write::GzEncoder;

use crate::receive::compression::Compression;

/// Takes bytes and gives compressed ones, which [`Encoder::take`] hands over.
pub(super) enum Encoder {
    Gzip(GzEncoder<Output>),
    Lz4(lz4::Encoder<Output>),
    Zstd(zstd::Encoder<'static, Output>),
}

/// Where a compressor puts what it has, shared because not every one lets its writer be taken out.
#[derive(Clone, Debug, Default)]
pub(super) struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    /// Takes what is there, leaving `empty` in its place.
    pub(super) fn swap(&self, empty: Vec<u8>) -> Vec<u8> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut bytes, empty)
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Encoder {
    /// A compressor and where its bytes come out; `None` where nothing is compressed.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub(super) fn new(compression: Compression) -> io::Result<Option<(Self, Output)>> {
        let output = Output::default();
        let encoder = match compression {
            Compression::None => return Ok(None),
            Compression::Gzip(level) => {
                let level =
                    level.map_or_else(flate2::Compression::default, flate2::Compression::new);
                Self::Gzip(GzEncoder::new(output.clone(), level))
            }
            Compression::Lz4(level) => {
                // The frame that `pg_receivewal` writes has no checksum. Of the content one is enough to tell damage.
                let encoder = lz4::EncoderBuilder::new()
                    .level(level)
                    .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
                    .build(output.clone())?;
                Self::Lz4(encoder)
            }
            Compression::Zstd(level) => Self::Zstd(zstd::Encoder::new(output.clone(), level)?),
        };
        Ok(Some((encoder, output)))
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Lz4(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Lets everything taken so far come out, in a form that can be decompressed up to here.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Lz4(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    /// Ends the file in order.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.finish().map(drop),
            Self::Lz4(encoder) => encoder.finish().1,
            Self::Zstd(encoder) => encoder.finish().map(drop),
        }
    }
}
