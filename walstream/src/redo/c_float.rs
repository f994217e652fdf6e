//! [`CFloat`]: a number as C's `printf` prints it with `%g`.

use std::fmt;

/// Prints 6 significant digits, with an exponent only where the number is below 0.0001 or has more digits, and no zeros
/// at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CFloat(pub(super) f64);

/// Significant digits.
const PRECISION: i32 = 6;

impl fmt::Display for CFloat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = *self;
        if number.is_nan() || number.is_infinite() {
            let sign = if number.is_sign_negative() { "-" } else { "" };
            return write!(f, "{sign}{}", if number.is_nan() { "nan" } else { "inf" });
        }
        // Rounding may raise the exponent, so it is the rounded number's that counts.
        let scientific = format!("{number:.5e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        if (-4..PRECISION).contains(&exponent) {
            let decimals = usize::try_from(PRECISION - 1 - exponent).unwrap_or(0);
            return f.write_str(without_zeros(&format!("{number:.decimals$}")));
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        let exponent = exponent.unsigned_abs();
        write!(f, "{}e{sign}{exponent:02}", without_zeros(digits))
    }
}

fn without_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

#[cfg(test)]
mod tests {
    use super::CFloat;

    #[test]
    fn as_c_prints_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (4000.0, "4000"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.23457e+06"),
            (999_999.5, "1e+06"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (1.5, "1.5"),
            (-2.25, "-2.25"),
            (1e100, "1e+100"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (number, printed) in cases {
            assert_eq!(CFloat(number).to_string(), printed);
        }
    }
}
