//! [`ArchiveEncoder`]: bytes of an archive in, pieces for the client out, compressed or as they are.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

use bytes::Bytes;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;
use walstream::protocol::command::CompressionAlgorithm;

use super::compression::CompressionSpec;
use super::error::BackupError;
use super::producer::BackupEvent;

/// An archive that is being written.
pub(super) enum ArchiveEncoder {
    Plain(Pieces),
    Gzip(Box<GzEncoder<Pieces>>),
    Lz4(Box<lz4::Encoder<Pieces>>),
    Zstd(Box<zstd::Encoder<'static, Pieces>>),
}

/// Gathers bytes and hands them on in pieces.
pub(super) struct Pieces {
    events: mpsc::Sender<BackupEvent>,
    piece_size: usize,
    bytes: Vec<u8>,
    /// Bytes of all archives so far, before compression.
    bytes_done: Rc<Cell<u64>>,
}

impl Pieces {
    pub(super) const fn new(
        events: mpsc::Sender<BackupEvent>,
        piece_size: usize,
        bytes_done: Rc<Cell<u64>>,
    ) -> Self {
        Self {
            events,
            piece_size,
            bytes: Vec::new(),
            bytes_done,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.bytes);
        let event = BackupEvent::Data {
            bytes: Bytes::from(bytes),
            bytes_done: self.bytes_done.get(),
        };
        self.events
            .blocking_send(event)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.piece_size);
        }
        let room = self.piece_size - self.bytes.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
        self.bytes.extend_from_slice(taken);
        if self.bytes.len() >= self.piece_size {
            self.send()?;
        }
        Ok(taken.len())
    }

    /// What is gathered waits for more: encoders flush more often than a piece is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ArchiveEncoder {
    pub(super) fn new(spec: &CompressionSpec, pieces: Pieces) -> Result<Self, BackupError> {
        Ok(match spec.algorithm {
            CompressionAlgorithm::None => Self::Plain(pieces),
            CompressionAlgorithm::Gzip => {
                let level = u32::try_from(spec.level)
                    .map_or_else(|_| flate2::Compression::default(), flate2::Compression::new);
                Self::Gzip(Box::new(GzEncoder::new(pieces, level)))
            }
            CompressionAlgorithm::Lz4 => {
                let level = u32::try_from(spec.level).unwrap_or_default();
                let encoder = lz4::EncoderBuilder::new()
                    .level(level)
                    .block_size(lz4::BlockSize::Max256KB)
                    .build(pieces);
                Self::Lz4(Box::new(encoder.map_err(BackupError::Compress)?))
            }
            CompressionAlgorithm::Zstd => {
                let mut encoder =
                    zstd::Encoder::new(pieces, spec.level).map_err(BackupError::Compress)?;
                if let Some(count) = spec.workers {
                    let bad = |reason: String| BackupError::Workers { count, reason };
                    let workers = u32::try_from(count)
                        .map_err(|_| bad("Parameter is out of bound".to_owned()))?;
                    encoder
                        .multithread(workers)
                        .map_err(|error| bad(error.to_string()))?;
                }
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let written = match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
            Self::Lz4(out) => out.write_all(bytes),
            Self::Zstd(out) => out.write_all(bytes),
        };
        written.map_err(encoding_failed)
    }

    /// Hands on what is gathered of an archive that is not compressed.
    pub(super) fn end_piece(&mut self) -> Result<(), BackupError> {
        match self {
            Self::Plain(pieces) => pieces.send().map_err(encoding_failed),
            _ => Ok(()),
        }
    }

    /// Ends the archive: everything is handed on.
    pub(super) fn finish(self) -> Result<(), BackupError> {
        let pieces = match self {
            Self::Plain(pieces) => Ok(pieces),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Lz4(encoder) => {
                let (pieces, result) = encoder.finish();
                result.map(|()| pieces)
            }
            Self::Zstd(encoder) => encoder.finish(),
        };
        pieces
            .and_then(|mut pieces| pieces.send())
            .map_err(encoding_failed)
    }
}

fn encoding_failed(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => BackupError::ClientGone,
        _ => BackupError::Compress(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pass_through(spec: &CompressionSpec, content: &[u8]) -> Vec<u8> {
        let (events, mut received) = mpsc::channel(1000);
        let pieces = Pieces::new(events, 1000, Rc::default());
        let mut encoder = ArchiveEncoder::new(spec, pieces).unwrap();
        for part in content.chunks(777) {
            encoder.write(part).unwrap();
        }
        encoder.finish().unwrap();
        let mut out = Vec::new();
        while let Ok(event) = received.try_recv() {
            match event {
                BackupEvent::Data { bytes, .. } => {
                    assert!(!bytes.is_empty() && bytes.len() <= 1000);
                    out.extend_from_slice(&bytes);
                }
                other => panic!("{other:?}"),
            }
        }
        out
    }

    #[test]
    fn what_goes_in_comes_out_again() {
        let content: Vec<u8> = (0..50_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        for algorithm in [
            CompressionAlgorithm::None,
            CompressionAlgorithm::Gzip,
            CompressionAlgorithm::Lz4,
            CompressionAlgorithm::Zstd,
        ] {
            for level in [1, 5, 9] {
                let workers = (algorithm == CompressionAlgorithm::Zstd).then_some(2);
                let spec = CompressionSpec {
                    algorithm,
                    level,
                    workers,
                };
                for content in [&content[..], b"", b"x"] {
                    let encoded = pass_through(&spec, content);
                    let mut decoded = Vec::new();
                    match algorithm {
                        CompressionAlgorithm::None => decoded = encoded,
                        CompressionAlgorithm::Gzip => {
                            flate2::read::GzDecoder::new(&encoded[..])
                                .read_to_end(&mut decoded)
                                .unwrap();
                        }
                        CompressionAlgorithm::Lz4 => {
                            lz4_flex::frame::FrameDecoder::new(&encoded[..])
                                .read_to_end(&mut decoded)
                                .unwrap();
                        }
                        CompressionAlgorithm::Zstd => {
                            decoded = zstd::decode_all(&encoded[..]).unwrap();
                        }
                    }
                    assert!(decoded == content, "{spec:?}");
                }
            }
        }
    }

    #[test]
    fn a_client_that_is_gone_ends_it() {
        let (events, received) = mpsc::channel(1);
        drop(received);
        let pieces = Pieces::new(events, 10, Rc::default());
        let mut encoder = ArchiveEncoder::new(&CompressionSpec::NONE, pieces).unwrap();
        assert!(matches!(
            encoder.write(&[0; 20]),
            Err(BackupError::ClientGone)
        ));
    }
}
