//! PostgreSQL's own compression, as full-page images and TOAST values use it.
//!
//! A control byte announces eight items, lowest bit first: a 0 is one literal byte, a 1 is a copy from what was written
//! before: two bytes hold a length of 3 to 18 in the low four bits of the first and a distance of 1 to 4095 in the
//! other twelve; a length of 18 is followed by one byte that adds 0 to 255.
//!
//! Decoding is safe on any input: it writes within the output it was given and reads within the input.

use thiserror::Error;

/// Input that does not decompress to the length expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PglzError {
    /// The input ended inside an item.
    #[error("pglz input ends inside an item, after {written} bytes of output")]
    InputEnds {
        /// Bytes of output so far.
        written: usize,
    },
    /// A copy from before the output's start, or from distance 0.
    #[error("pglz copies from distance {distance} after {written} bytes of output")]
    Distance {
        /// The distance, in bytes.
        distance: usize,
        /// Bytes of output so far.
        written: usize,
    },
    /// Input and output did not end together.
    #[error("pglz gave {written} of {expected} bytes, with {left} bytes of input left")]
    Length {
        /// Bytes of output.
        written: usize,
        /// Bytes that were expected.
        expected: usize,
        /// Bytes of input that were not read.
        left: usize,
    },
}

/// Decompresses `input` into the whole of `output`.
///
/// # Errors
/// [`PglzError`] when the input is damaged, or does not fill the output exactly.
///
/// # Source
/// `pglz_decompress` (with `check_complete`) in `src/common/pg_lzcompress.c`.
pub fn decompress(input: &[u8], output: &mut [u8]) -> Result<(), PglzError> {
    let mut input = input;
    let mut written = 0;
    let expected = output.len();
    while let Some((&control, rest)) = input.split_first() {
        if written == expected {
            break;
        }
        input = rest;
        for bit in 0..8 {
            if written == expected || (input.is_empty() && control >> bit == 0) {
                break;
            }
            if control >> bit & 1 == 1 {
                written = copy(&mut input, output, written)?;
            } else {
                let (&literal, rest) = input
                    .split_first()
                    .ok_or(PglzError::InputEnds { written })?;
                let place = output
                    .get_mut(written)
                    .ok_or(PglzError::InputEnds { written })?;
                *place = literal;
                input = rest;
                written += 1;
            }
        }
    }
    if written == expected && input.is_empty() {
        Ok(())
    } else {
        Err(PglzError::Length {
            written,
            expected,
            left: input.len(),
        })
    }
}

/// Performs one copy item at the start of `input`, and gives the new length of the output.
fn copy(input: &mut &[u8], output: &mut [u8], written: usize) -> Result<usize, PglzError> {
    let ends = PglzError::InputEnds { written };
    let (&[first, second], rest) = input.split_first_chunk::<2>().ok_or(ends)?;
    *input = rest;
    let mut length = usize::from(first & 0x0F) + 3;
    let distance = usize::from(first & 0xF0) << 4 | usize::from(second);
    if length == 18 {
        let (&more, rest) = input.split_first().ok_or(ends)?;
        *input = rest;
        length += usize::from(more);
    }
    if distance == 0 || distance > written {
        return Err(PglzError::Distance { distance, written });
    }
    // PostgreSQL cuts a copy at the end of the output; the final check then sees whether input is left.
    let end = (written + length).min(output.len());
    let mut at = written;
    // A copy may overlap what it writes, and then repeats it: whole distances at a time, doubling the source.
    let start = written - distance;
    while at < end {
        let count = (at - start).min(end - at);
        output.copy_within(start..start + count, at);
        at += count;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(input: &[u8], length: usize) -> Result<Vec<u8>, PglzError> {
        let mut output = vec![0; length];
        decompress(input, &mut output).map(|()| output)
    }

    #[test]
    fn literals_and_overlapping_copies() {
        assert_eq!(run(&[0b0000_0000, b'a', b'b'], 2).unwrap(), b"ab");
        // "ab", then 6 bytes from distance 2.
        assert_eq!(
            run(&[0b0000_0100, b'a', b'b', 0x03, 0x02], 8).unwrap(),
            b"abababab"
        );
        // One byte, then 18 + 2 bytes from distance 1.
        assert_eq!(
            run(&[0b0000_0010, b'x', 0x0F, 0x01, 0x02], 21).unwrap(),
            [b'x'; 21]
        );
        assert_eq!(run(&[], 0).unwrap(), b"");
    }

    #[test]
    fn damage_is_refused() {
        assert_eq!(
            run(&[0b1, 0x00, 0x01], 4),
            Err(PglzError::Distance {
                distance: 1,
                written: 0
            })
        );
        assert_eq!(
            run(&[0b10, b'x', 0x00, 0x00], 4),
            Err(PglzError::Distance {
                distance: 0,
                written: 1
            })
        );
        assert_eq!(
            run(&[0b10, b'x', 0x00], 4),
            Err(PglzError::InputEnds { written: 1 })
        );
        assert_eq!(
            run(&[0b10, b'x', 0x0F, 0x01], 40),
            Err(PglzError::InputEnds { written: 1 })
        );
        assert_eq!(
            run(&[0, b'x'], 2),
            Err(PglzError::Length {
                written: 1,
                expected: 2,
                left: 0
            })
        );
        assert_eq!(
            run(&[0, b'x', b'y'], 1),
            Err(PglzError::Length {
                written: 1,
                expected: 1,
                left: 1
            })
        );
    }
}
