//! Numbers as the C library reads them: blanks before, a sign, digits, and the rest is handed back.

/// Reads a decimal number from the front of a text. A number too great is the greatest there is. Without digits it is 0
/// and the whole text is the rest.
///
/// # Source
/// `strtol` of C.
#[must_use]
pub fn decimal(text: &str) -> (i64, &str) {
    let (negative, digits) = sign(text.trim_start_matches(is_space));
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let (number, rest) = digits.split_at(end);
    if number.is_empty() {
        return (0, text);
    }
    let magnitude = number.parse::<i64>().unwrap_or(i64::MAX);
    (if negative { -magnitude } else { magnitude }, rest)
}

/// Reads a hexadecimal number of 32 bits from the front of a text, `0x` allowed; `None` without digits.
///
/// # Source
/// `sscanf` of C with `%X`.
#[must_use]
pub fn hexadecimal(text: &str) -> Option<(u32, &str)> {
    let (negative, digits) = sign(text.trim_start_matches(is_space));
    let digits = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit()))
        .unwrap_or(digits);
    let end = digits
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(digits.len());
    let (number, rest) = digits.split_at(end);
    if number.is_empty() {
        return None;
    }
    let wide = u64::from_str_radix(number, 16).unwrap_or(u64::MAX);
    let wide = if negative { wide.wrapping_neg() } else { wide };
    // C keeps the low half.
    let low = u32::try_from(wide & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    Some((low, rest))
}

/// What `isspace` of C takes for a blank.
#[must_use]
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, number, rest) in [
            ("10", 10, ""),
            (" \t-7x", -7, "x"),
            ("+5 ", 5, " "),
            ("", 0, ""),
            (" x", 0, " x"),
            ("-", 0, "-"),
            ("99999999999999999999", i64::MAX, ""),
            ("0x10", 0, "x10"),
        ] {
            assert_eq!(decimal(text), (number, rest), "{text:?}");
        }
        for (text, expected) in [
            ("16/B3", Some((0x16, "/B3"))),
            (" 0xFFg", Some((0xFF, "g"))),
            ("0x", Some((0, "x"))),
            ("123456789", Some((0x2345_6789, ""))),
            ("-1", Some((u32::MAX, ""))),
            ("", None),
            ("g", None),
        ] {
            assert_eq!(hexadecimal(text), expected, "{text:?}");
        }
    }
}
