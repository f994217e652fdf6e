//! Numbers as text, appended to a buffer. Lines are mostly numbers, and the standard formatter is a third of their cost.

use walstream::Lsn;

/// Appends a number in decimal.
#[inline]
pub(super) fn decimal(out: &mut Vec<u8>, value: u64) {
    padded(out, value, 0);
}

/// Appends a number in decimal, right-aligned with blanks in at least `width` places, 20 at most.
#[inline]
pub(super) fn padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut digits = [b' '; 20];
    let mut rest = value;
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    let from = digits.len() - width.clamp(used, 20);
    out.extend_from_slice(digits.get(from..).unwrap_or_default());
}

/// Appends a number in upper-case hexadecimal, with zeros before it up to `width` places, 16 at most.
#[inline]
pub(super) fn hexadecimal(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut digits = [b'0'; 16];
    let mut rest = value;
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        let digit = (rest % 16) as u8;
        *place = if digit < 10 {
            b'0' + digit
        } else {
            b'A' + digit - 10
        };
        rest /= 16;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    let from = digits.len() - width.clamp(used, 16);
    out.extend_from_slice(digits.get(from..).unwrap_or_default());
}

/// Appends an LSN as the lines of `pg_waldump` have it: the low half with all eight digits.
#[inline]
pub(super) fn padded_lsn(out: &mut Vec<u8>, lsn: Lsn) {
    let (high, low) = lsn.halves();
    hexadecimal(out, high.into(), 1);
    out.push(b'/');
    hexadecimal(out, low.into(), 8);
}

/// Appends an LSN as PostgreSQL prints it elsewhere.
#[inline]
pub(super) fn lsn(out: &mut Vec<u8>, lsn: Lsn) {
    let (high, low) = lsn.halves();
    hexadecimal(out, high.into(), 1);
    out.push(b'/');
    hexadecimal(out, low.into(), 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(append: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        append(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn as_the_standard_formatter_has_them(value: u64, shift in 0u32..64, width in 0usize..20) {
            let value = value >> shift;
            prop_assert_eq!(text(|out| decimal(out, value)), value.to_string());
            prop_assert_eq!(text(|out| padded(out, value, width)), format!("{value:width$}"));
            let width = width.min(16);
            prop_assert_eq!(text(|out| hexadecimal(out, value, width)), format!("{value:0width$X}"));
            prop_assert_eq!(text(|out| lsn(out, Lsn(value))), Lsn(value).to_string());
            let padded = format!("{:X}/{:08X}", value >> 32, value & 0xFFFF_FFFF);
            prop_assert_eq!(text(|out| padded_lsn(out, Lsn(value))), padded);
        }
    }
}
