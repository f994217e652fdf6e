//! [`Lz4Frames`]: a file of LZ4 frames, one after the other.

use std::io::{self, Read};

use lz4_flex::frame::{Error as Lz4Error, FrameDecoder};

use super::input::CompressedInput;

/// Reads LZ4 frames (the format of the `lz4` program and of `pg_receivewal`), skips skippable ones, and tells the end of
/// a file from a file that ends within a frame, which [`FrameDecoder`] alone does not where a block ends.
///
/// A frame carries checksums only if its writer wanted them; `pg_receivewal` does not.
pub(crate) struct Lz4Frames {
    /// `None` only after an error.
    frame: Option<FrameDecoder<CompressedInput>>,
    /// Where the current frame begins, in bytes from the file's start.
    frame_start: u64,
}

impl Lz4Frames {
    pub(crate) fn new(input: CompressedInput) -> Self {
        Self {
            frame: Some(FrameDecoder::new(input)),
            frame_start: 0,
        }
    }

    pub(crate) fn input(&mut self) -> Option<&mut CompressedInput> {
        self.frame.as_mut().map(FrameDecoder::get_mut)
    }

    pub(crate) fn into_input(self) -> Option<CompressedInput> {
        self.frame.map(FrameDecoder::into_inner)
    }

    /// Begins with a new frame where the last one ended. A decoder is not used for two, since its buffers keep the
    /// size that the first one needed.
    fn next_frame(&mut self, input: CompressedInput) {
        self.frame_start = input.consumed();
        self.frame = Some(FrameDecoder::new(input));
    }
}

impl Read for Lz4Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let mut frame = self
                .frame
                .take()
                .ok_or_else(|| io::Error::other("read on after an error"))?;
            match frame.read(buffer) {
                Ok(0) => {
                    let input = frame.into_inner();
                    let (at_end, consumed) = (input.at_end(), input.consumed());
                    if !at_end {
                        self.next_frame(input);
                        continue;
                    }
                    self.frame = Some(FrameDecoder::new(input));
                    // An empty file has no frame, so it is cut short too.
                    return if consumed == self.frame_start && consumed > 0 {
                        Ok(0)
                    } else {
                        Err(io::ErrorKind::UnexpectedEof.into())
                    };
                }
                Ok(count) => {
                    self.frame = Some(frame);
                    return Ok(count);
                }
                Err(error) => match skippable(&error) {
                    Some(length) => {
                        let mut input = frame.into_inner();
                        skip(&mut input, length)?;
                        self.next_frame(input);
                    }
                    None => {
                        self.frame = Some(frame);
                        return Err(error);
                    }
                },
            }
        }
    }
}

/// Length of the skippable frame that this error tells of.
fn skippable(error: &io::Error) -> Option<u32> {
    match error.get_ref()?.downcast_ref::<Lz4Error>()? {
        Lz4Error::SkippableFrame(length) => Some(*length),
        _ => None,
    }
}

fn skip(input: &mut CompressedInput, length: u32) -> io::Result<()> {
    let length = u64::from(length);
    let skipped = io::copy(&mut input.take(length), &mut io::sink())?;
    if skipped == length {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
