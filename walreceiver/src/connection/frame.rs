//! [`FrameBuffer`]: bytes from a server cut into messages, each with a maximum length.
//!
//! A length is judged as soon as its five bytes are there, so a claim of 2 GB is an error at once. Memory grows with
//! what has arrived, never with what was claimed.

use bytes::{Bytes, BytesMut};

/// Free space that a read begins with.
const READ_SIZE: usize = 256 * 1024;
/// Below this much free space the buffer is made ready for another full read.
const MIN_FREE: usize = 32 * 1024;

/// WAL of 16 blocks of 64 kB is the largest that any server sends at once; base backups use less.
const MAX_COPY_DATA: u32 = 2 << 20;
const MAX_DATA_ROW: u32 = 64 << 20;
const MAX_TEXT: u32 = 1 << 20;
/// What libpq calls a message that is not long.
const MAX_SHORT: u32 = 30_000;

/// One message: its tag, and its body without the length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// Why bytes are no messages of PostgreSQL's protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No server sends this tag to a client that asked for what we ask.
    #[error("message with unknown tag {:?} (0x{tag:02x}), length {length}: this is not a PostgreSQL server, or the stream is out of step", char::from(*tag))]
    UnknownTag {
        /// First byte of the message.
        tag: u8,
        /// As claimed, in bytes, itself included.
        length: u32,
    },
    /// The length is out of the bounds of this kind of message.
    #[error("message {:?} claims a length of {length} bytes, which is not between 4 and {maximum}", char::from(*tag))]
    Length {
        /// First byte of the message.
        tag: u8,
        /// As claimed, in bytes, itself included.
        length: u32,
        /// Most that this kind of message may have.
        maximum: u32,
    },
}

/// Received bytes that are not yet taken.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    bytes: BytesMut,
}

impl FrameBuffer {
    /// The buffer to read into, with room for a big read.
    ///
    /// The space of messages that have been dropped is used again, so a reader that drops each message before the next
    /// wait makes this flat.
    pub(super) fn for_reading(&mut self) -> &mut BytesMut {
        if self.bytes.capacity().saturating_sub(self.bytes.len()) < MIN_FREE {
            self.bytes.reserve(READ_SIZE);
        }
        &mut self.bytes
    }

    /// The next message, or `None` while it is not complete.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((&[tag, b1, b2, b3, b4], _)) = self.bytes.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([b1, b2, b3, b4]);
        let maximum = maximum_length(tag).ok_or(FrameError::UnknownTag { tag, length })?;
        if !(4..=maximum).contains(&length) {
            return Err(FrameError::Length {
                tag,
                length,
                maximum,
            });
        }
        let total = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        if self.bytes.len() < total {
            return Ok(None);
        }
        let mut body = self.bytes.split_to(total).freeze();
        bytes::Buf::advance(&mut body, 5);
        Ok(Some(Frame { tag, body }))
    }

    /// What remains, when a server answers in the way of protocol 2, without frames.
    pub(super) fn take_unframed(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }
}

/// The greatest length that a message with this tag may claim; `None` for tags that no server sends.
///
/// # Source
/// `VALID_LONG_MESSAGE_TYPE` in `src/interfaces/libpq/fe-protocol3.c`, with bounds of our own.
const fn maximum_length(tag: u8) -> Option<u32> {
    match tag {
        b'd' => Some(MAX_COPY_DATA),
        b'D' => Some(MAX_DATA_ROW),
        b'T' | b'E' | b'N' | b'A' => Some(MAX_TEXT),
        b'R' | b'S' | b'K' | b'Z' | b'C' | b'c' | b'I' | b'G' | b'H' | b'W' | b'v' | b'1'
        | b'2' | b'3' | b'n' | b's' | b't' => Some(MAX_SHORT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buffer(bytes: &[u8]) -> FrameBuffer {
        FrameBuffer {
            bytes: bytes.into(),
        }
    }

    #[test]
    fn judges_lengths_at_the_fifth_byte() {
        for (tag, length, good) in [
            (b'Z', 3_u32, false),
            (b'Z', 4, true),
            (b'Z', 30_000, true),
            (b'Z', 30_001, false),
            (b'd', MAX_COPY_DATA, true),
            (b'd', MAX_COPY_DATA + 1, false),
            (b'd', 0x7fff_ffff, false),
            (b'd', 0xffff_ffff, false),
            (b'D', MAX_DATA_ROW, true),
            (b'D', MAX_DATA_ROW + 1, false),
            (b'x', 4, false),
            (0, 4, false),
        ] {
            let mut bytes = vec![tag];
            bytes.extend(length.to_be_bytes());
            assert_eq!(buffer(&bytes[..4]).next_frame(), Ok(None));
            assert_eq!(buffer(&bytes).next_frame().is_ok(), good, "{tag} {length}");
        }
        assert!(matches!(
            buffer(b"HTTP/1.1 400 Bad").next_frame(),
            Err(FrameError::Length { tag: b'H', .. })
        ));
        assert!(matches!(
            buffer(b"\x15\x03\x03\0\x02").next_frame(),
            Err(FrameError::UnknownTag { tag: 0x15, .. })
        ));
    }

    #[test]
    fn memory_stays_flat() {
        let message = [&b"d"[..], &131_000_u32.to_be_bytes(), &[7; 130_996]].concat();
        let mut frames = FrameBuffer::default();
        let mut largest = 0;
        for _ in 0..200 {
            for piece in message.chunks(100_000) {
                frames.for_reading().extend_from_slice(piece);
                largest = largest.max(frames.bytes.capacity());
            }
            assert_eq!(frames.next_frame().unwrap().unwrap().body.len(), 130_996);
        }
        assert!(largest < 4 * READ_SIZE, "{largest}");
    }

    proptest! {
        #[test]
        fn any_bytes_give_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = buffer(&bytes);
            while let Ok(Some(_)) = frames.next_frame() {}
        }

        #[test]
        fn any_chunking_gives_the_same_frames(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..10),
            chunk in 1..30_usize,
        ) {
            let mut bytes = Vec::new();
            for body in &bodies {
                bytes.push(b'd');
                bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
                bytes.extend(body);
            }
            let mut frames = FrameBuffer::default();
            let mut found = Vec::new();
            for chunk in bytes.chunks(chunk) {
                frames.for_reading().extend_from_slice(chunk);
                while let Some(frame) = frames.next_frame().unwrap() {
                    found.push(frame.body.to_vec());
                }
            }
            prop_assert_eq!(found, bodies);
        }
    }
}
