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

/// Compresses `input` into `output`, which is emptied first; gives whether the result is shorter than the input. When it
/// is not, the output's content is of no use.
///
/// Another search than PostgreSQL's finds the copies, so the bytes differ from its own; it reads them all the same.
pub fn compress(input: &[u8], output: &mut Vec<u8>) -> bool {
    // Where three bytes with this hash were seen last, plus one.
    let mut seen = [0u16; 4096];
    output.clear();
    let mut at = 0;
    while at < input.len() {
        let control_at = output.len();
        let mut control = 0u8;
        output.push(0);
        for bit in 0..8 {
            let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let length = match find_copy(input, at, &mut seen) {
                Some((distance, length)) => {
                    put_copy(distance, length, output);
                    control |= 1 << bit;
                    length
                }
                None => {
                    output.extend(rest.first());
                    1
                }
            };
            at += length;
        }
        if let Some(place) = output.get_mut(control_at) {
            *place = control;
        }
        if output.len() >= input.len() {
            return false;
        }
    }
    !input.is_empty()
}

const MIN_COPY: usize = 3;
const MAX_COPY: usize = 18 + 255;
const MAX_DISTANCE: usize = 4095;

/// A place before `at` with the same bytes as there: its distance, and how many are the same.
fn find_copy(input: &[u8], at: usize, seen: &mut [u16; 4096]) -> Option<(usize, usize)> {
    let &[a, b, c] = input.get(at..)?.first_chunk::<MIN_COPY>()?;
    let hash = usize::from(a) ^ usize::from(b) << 3 ^ usize::from(c) << 6;
    let place = seen.get_mut(hash % 4096)?;
    let before = usize::from(*place).checked_sub(1);
    *place = u16::try_from(at + 1).unwrap_or(0);
    let distance = at - before?;
    let (earlier, here) = (input.get(before?..)?, input.get(at..)?);
    let same = earlier.iter().zip(here).take(MAX_COPY);
    let length = same.take_while(|(earlier, here)| earlier == here).count();
    (distance <= MAX_DISTANCE && length >= MIN_COPY).then_some((distance, length))
}

fn put_copy(distance: usize, length: usize, output: &mut Vec<u8>) {
    let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    let short = length.min(18);
    output.push(byte(distance >> 8 << 4 | (short - MIN_COPY)));
    output.push(byte(distance & 0xFF));
    if short == 18 {
        output.push(byte(length - 18));
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
