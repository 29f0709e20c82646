//! Numbers as DynamoDB keeps them: decimals of at most 38 significant digits, exact, between 1E-130 and 9.99E+125. Equal numbers
//! are equal however they were written.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Significant digits of a number (developer guide, "Data types").
pub const DIGITS_MAX: u32 = 38;
/// The largest power of ten of a number's first digit.
const MAGNITUDE_MAX: i32 = 125;
/// The smallest power of ten of a number's first digit.
const MAGNITUDE_MIN: i32 = -130;
/// Characters of a number's text that are looked at; more cannot be a number of 38 digits.
const TEXT_BYTES_MAX: usize = 512;

/// A decimal number: `coefficient` times ten to the power of `exponent`. The coefficient has no zero at its end, so that equal
/// numbers have equal fields; zero is `0E0`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Number {
    negative: bool,
    coefficient: u128,
    exponent: i16,
}

/// Why a text or a result is no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// It is not written as a number.
    #[error("The parameter cannot be converted to a numeric value: {0}")]
    NotANumber(String),
    /// It has more than 38 significant digits.
    #[error("Attempting to store more than 38 significant digits in a Number")]
    TooManyDigits,
    /// It is 1E+126 or more.
    #[error("Number overflow. Attempting to store a number with magnitude larger than supported range")]
    Overflow,
    /// It is nearer to zero than 1E-130.
    #[error("Number underflow. Attempting to store a number with magnitude smaller than supported range")]
    Underflow,
}

impl Number {
    /// Zero.
    pub const ZERO: Number = Number {
        negative: false,
        coefficient: 0,
        exponent: 0,
    };

    fn new(negative: bool, mut coefficient: u128, mut exponent: i32) -> Result<Self, NumberError> {
        if coefficient == 0 {
            return Ok(Number::ZERO);
        }
        while coefficient.is_multiple_of(10) {
            coefficient /= 10;
            exponent = exponent.saturating_add(1);
        }
        let digits = digits(coefficient);
        if digits > DIGITS_MAX {
            return Err(NumberError::TooManyDigits);
        }
        match exponent.saturating_add(digits as i32 - 1) {
            magnitude if magnitude > MAGNITUDE_MAX => return Err(NumberError::Overflow),
            magnitude if magnitude < MAGNITUDE_MIN => return Err(NumberError::Underflow),
            _ => {}
        }
        Ok(Number {
            negative,
            coefficient,
            exponent: i16::try_from(exponent).map_err(|_| NumberError::Overflow)?,
        })
    }

    /// The power of ten of the first digit.
    fn magnitude(&self) -> i32 {
        i32::from(self.exponent) + digits(self.coefficient) as i32 - 1
    }

    /// The sum, exact.
    pub fn plus(self, other: Number) -> Result<Number, NumberError> {
        if self.coefficient == 0 {
            return Ok(other);
        }
        if other.coefficient == 0 {
            return Ok(self);
        }
        let exponent = self.exponent.min(other.exponent);
        // What does not fit has more than 38 digits in the sum too: the last digit of the finer one stays.
        let scaled = |number: Number| {
            let power = u32::from((number.exponent - exponent).unsigned_abs());
            let factor = 10u128.checked_pow(power).ok_or(NumberError::TooManyDigits)?;
            number.coefficient.checked_mul(factor).ok_or(NumberError::TooManyDigits)
        };
        let (a, b) = (scaled(self)?, scaled(other)?);
        let (negative, sum) = if self.negative == other.negative {
            (self.negative, a.checked_add(b).ok_or(NumberError::TooManyDigits)?)
        } else if a >= b {
            (self.negative, a - b)
        } else {
            (other.negative, b - a)
        };
        Number::new(negative, sum, i32::from(exponent))
    }

    /// The difference, exact.
    pub fn minus(self, other: Number) -> Result<Number, NumberError> {
        self.plus(Number {
            negative: !other.negative && other.coefficient != 0,
            ..other
        })
    }

    /// Bytes that DynamoDB counts for it: about one for two digits, and one.
    pub fn size(&self) -> usize {
        let pairs = digits(self.coefficient).div_ceil(2) as usize;
        pairs + 1 + usize::from(self.negative)
    }

    /// Its parts, for storing: sign, coefficient, exponent.
    pub fn parts(&self) -> (bool, u128, i16) {
        (self.negative, self.coefficient, self.exponent)
    }

    /// From stored parts; `None` if they are no number.
    pub fn from_parts(negative: bool, coefficient: u128, exponent: i16) -> Option<Self> {
        Number::new(negative, coefficient, i32::from(exponent)).ok()
    }

    /// The whole number, if it is one that fits.
    pub fn to_i64(self) -> Option<i64> {
        let power = u32::try_from(self.exponent).ok()?;
        let size = self.coefficient.checked_mul(10u128.checked_pow(power)?)?;
        let size = i128::try_from(size).ok()?;
        i64::try_from(if self.negative { -size } else { size }).ok()
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        // Twenty digits at most.
        Number::new(false, u128::from(number), 0).unwrap_or(Number::ZERO)
    }
}

fn digits(coefficient: u128) -> u32 {
    coefficient.checked_ilog10().map_or(1, |log| log + 1)
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |n: &Number| match (n.coefficient, n.negative) {
            (0, _) => 0,
            (_, false) => 1,
            (_, true) => -1,
        };
        let by_size = || {
            let (a, b) = (self.magnitude(), other.magnitude());
            a.cmp(&b).then_with(|| aligned(self).cmp(&aligned(other)))
        };
        match (sign(self), sign(other)) {
            (1, 1) => by_size(),
            (-1, -1) => by_size().reverse(),
            (a, b) => a.cmp(&b),
        }
    }
}

/// The digits as if there were 38 of them: numbers of one magnitude compare by it.
fn aligned(number: &Number) -> u128 {
    let missing = DIGITS_MAX.saturating_sub(digits(number.coefficient));
    number.coefficient.saturating_mul(10u128.saturating_pow(missing))
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Number {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        let wrong = || NumberError::NotANumber(text.chars().take(64).collect());
        if text.len() > TEXT_BYTES_MAX {
            return Err(wrong());
        }
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, power) = match rest.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i32>().map_err(|_| wrong())?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(wrong());
        }
        let mut coefficient: u128 = 0;
        let mut exponent = power.saturating_sub(fraction.len() as i32);
        // Zeros that are at the end, or were not needed yet.
        let mut zeros = 0u32;
        for digit in whole.bytes().chain(fraction.bytes()) {
            if !digit.is_ascii_digit() {
                return Err(wrong());
            }
            if digit == b'0' {
                zeros += 1;
                continue;
            }
            if coefficient != 0 {
                let factor = 10u128.checked_pow(zeros + 1).ok_or(NumberError::TooManyDigits)?;
                coefficient = coefficient.checked_mul(factor).ok_or(NumberError::TooManyDigits)?;
            }
            coefficient = coefficient
                .checked_add(u128::from(digit - b'0'))
                .ok_or(NumberError::TooManyDigits)?;
            zeros = 0;
        }
        exponent = exponent.saturating_add(zeros as i32);
        Number::new(negative, coefficient, exponent)
    }
}

/// Plain notation, never with an exponent, as DynamoDB answers.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        let text = self.coefficient.to_string();
        let zeros = usize::from(self.exponent.unsigned_abs());
        if self.exponent >= 0 {
            return write!(f, "{text}{:0<zeros$}", "");
        }
        match text.len().checked_sub(zeros) {
            Some(point) if point > 0 => {
                let (whole, fraction) = text.split_at(point);
                write!(f, "{whole}.{fraction}")
            }
            _ => write!(f, "0.{text:0>zeros$}"),
        }
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(text: &str) -> Number {
        text.parse().unwrap()
    }

    #[test]
    fn equal_numbers_are_equal_however_they_were_written() {
        for (text, plain) in [
            ("0", "0"),
            ("-0.000", "0"),
            ("1", "1"),
            ("+1.50", "1.5"),
            ("1e3", "1000"),
            ("1.5E-3", "0.0015"),
            (".5", "0.5"),
            ("5.", "5"),
            ("00012.3400", "12.34"),
            ("-100", "-100"),
            (
                "99999999999999999999999999999999999999",
                "99999999999999999999999999999999999999",
            ),
            (
                "0.00000000000000000000000000000000000001",
                "0.00000000000000000000000000000000000001",
            ),
        ] {
            assert_eq!(n(text).to_string(), plain, "{text}");
            assert_eq!(n(&n(text).to_string()), n(text));
        }
        assert_eq!(n("1E-130").to_string().len(), 132);
        assert_eq!(n("9.9E+125").to_string().len(), 126);
    }

    #[test]
    fn what_is_no_number_of_38_digits_is_refused() {
        for bad in [
            "",
            "-",
            ".",
            "1e",
            "e1",
            "1x",
            "0x1",
            "1 ",
            " 1",
            "NaN",
            "Infinity",
            "1.2.3",
            "1e99999999999",
        ] {
            assert!(
                matches!(bad.parse::<Number>(), Err(NumberError::NotANumber(_))),
                "{bad}"
            );
        }
        assert_eq!("1".repeat(39).parse::<Number>(), Err(NumberError::TooManyDigits));
        assert_eq!(
            format!("1{}1", "0".repeat(300)).parse::<Number>(),
            Err(NumberError::TooManyDigits)
        );
        assert_eq!("1E126".parse::<Number>(), Err(NumberError::Overflow));
        assert_eq!("-1e2147483647".parse::<Number>(), Err(NumberError::Overflow));
        assert_eq!("1E-131".parse::<Number>(), Err(NumberError::Underflow));
        assert_eq!("1e-2147483648".parse::<Number>(), Err(NumberError::Underflow));
    }

    #[test]
    fn sums_are_exact_or_refused() {
        assert_eq!(n("0.1").plus(n("0.2")), Ok(n("0.3")));
        assert_eq!(n("1").minus(n("1")), Ok(Number::ZERO));
        assert_eq!(n("-5").plus(n("3")), Ok(n("-2")));
        assert_eq!(n("1e37").plus(n("1")), Ok(n("10000000000000000000000000000000000001")));
        assert_eq!(n("1e38").minus(n("1")), Ok(n("99999999999999999999999999999999999999")));
        assert_eq!(n("1e38").plus(n("1")), Err(NumberError::TooManyDigits));
        assert_eq!(n("1e125").plus(n("1e-130")), Err(NumberError::TooManyDigits));
        assert_eq!(n("9e125").plus(n("9e125")), Err(NumberError::Overflow));
        assert_eq!(Number::ZERO.minus(n("7")), Ok(n("-7")));
    }

    #[test]
    fn numbers_sort_by_their_value() {
        let sorted = [
            "-9e125", "-10", "-9.99", "-1", "-1e-130", "0", "1e-130", "0.5", "1", "1.01", "2", "10", "10.5", "1e38",
            "9e125",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(n(a).cmp(&n(b)), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(n("123").to_i64(), Some(123));
        assert_eq!(n("-1e3").to_i64(), Some(-1000));
        assert_eq!(n("1.5").to_i64(), None);
    }
}
