//! [`Decompressor`]: one stream over every compression, which tells a cut file from a damaged one.
//!
//! Memory is bounded whatever a file claims: 32 kiB of window for gzip, three blocks of at most 8 MiB for LZ4, and for
//! zstd a window of the segment's size, but at least 16 and at most 128 MiB. A frame that wants more is refused.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use walstream::SegmentSize;
use walstream::wal::segment_name::Compression;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::input::CompressedInput;
use super::lz4_frames::Lz4Frames;
use super::place::ReadAt;

/// Decompresses a file from its start: all its gzip members, LZ4 frames or zstd frames, with their checksums verified.
pub(crate) enum Decompressor {
    Gzip(MultiGzDecoder<CompressedInput>),
    Lz4(Lz4Frames),
    Zstd(ZstdDecoder<'static, CompressedInput>),
}

/// Why no more bytes come from a stream.
#[derive(Debug)]
pub(crate) enum StreamFault {
    /// The file ends within the stream.
    Truncated,
    /// The stream contradicts its format or its checksum.
    Corrupt(String),
    /// The file cannot be read.
    File(io::Error),
}

/// The largest zstd window that is accepted, as a power of two: with small segments, and with large ones (the limit of
/// the `zstd` program).
const ZSTD_WINDOW_LOG: (u32, u32) = (24, 27);

impl Decompressor {
    pub(crate) fn new(
        compression: Compression,
        file: Box<dyn ReadAt>,
        segment_size: SegmentSize,
    ) -> Result<Self, StreamFault> {
        let input = CompressedInput::new(file);
        Ok(match compression {
            Compression::Gzip => Self::Gzip(MultiGzDecoder::new(input)),
            Compression::Lz4 => Self::Lz4(Lz4Frames::new(input)),
            Compression::Zstd => {
                let (least, most) = ZSTD_WINDOW_LOG;
                let window_log = segment_size.bytes_u32().ilog2().clamp(least, most);
                let mut decoder = ZstdDecoder::with_buffer(input).map_err(StreamFault::File)?;
                decoder
                    .window_log_max(window_log)
                    .map_err(StreamFault::File)?;
                Self::Zstd(decoder)
            }
        })
    }

    /// Decompressed bytes; 0 at the end of a stream that is whole.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StreamFault> {
        let error = loop {
            let result = match self {
                Self::Gzip(decoder) => decoder.read(buffer),
                Self::Lz4(frames) => frames.read(buffer),
                Self::Zstd(decoder) => decoder.read(buffer),
            };
            match result {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        let input = match self {
            Self::Gzip(decoder) => Some(decoder.get_mut()),
            Self::Lz4(frames) => frames.input(),
            Self::Zstd(decoder) => Some(decoder.get_mut()),
        };
        Err(match input.and_then(CompressedInput::take_error) {
            Some(error) => StreamFault::File(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => StreamFault::Truncated,
            None => StreamFault::Corrupt(error.to_string()),
        })
    }

    /// The file, to read it again from its start.
    pub(crate) fn into_file(self) -> Option<Box<dyn ReadAt>> {
        let input = match self {
            Self::Gzip(decoder) => Some(decoder.into_inner()),
            Self::Lz4(frames) => frames.into_input(),
            Self::Zstd(decoder) => Some(decoder.finish()),
        };
        input.map(CompressedInput::into_file)
    }
}
