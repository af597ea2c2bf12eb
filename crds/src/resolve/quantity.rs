//! Kubernetes' quantities: `256Ki`, `1.5G`, `100m`, `1e6`. Compared exactly, as the API server does.

/// The most characters of a quantity.
const MAX_CHARACTERS: usize = 32;
/// Billionths in one.
const NANOS: i128 = 1_000_000_000;
/// The largest quantity there is, 2^63 − 1; anything above counts as it.
const CAP: i128 = i64::MAX as i128 * NANOS;
/// Digits after the point that count before a binary suffix; what lies behind them is rounded up.
const FRACTION_DIGITS: usize = 18;

/// What stands behind a quantity's number.
enum Suffix {
    /// Powers of two.
    Binary(u32),
    /// Powers of ten.
    Decimal(i64),
}

/// A quantity in billionths; `None` for a text that is not one.
pub fn nanos(text: &str) -> Option<i128> {
    if text.len() > MAX_CHARACTERS {
        return None;
    }
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let value = match parse_suffix(suffix)? {
        Suffix::Binary(shift) => binary(whole, fraction, shift),
        Suffix::Decimal(exponent) => decimal(whole, fraction, exponent),
    };
    Some(sign * value.min(CAP))
}

/// A quantity as a whole number of bytes, rounded up; `None` for a text that is not one, or that is below zero.
pub fn bytes(text: &str) -> Option<u64> {
    let nanos = nanos(text)?;
    u64::try_from((nanos + NANOS - 1).div_euclid(NANOS)).ok().filter(|_| nanos >= 0)
}

fn parse_suffix(suffix: &str) -> Option<Suffix> {
    Some(match suffix {
        "" => Suffix::Decimal(0),
        "n" => Suffix::Decimal(-9),
        "u" => Suffix::Decimal(-6),
        "m" => Suffix::Decimal(-3),
        "k" => Suffix::Decimal(3),
        "M" => Suffix::Decimal(6),
        "G" => Suffix::Decimal(9),
        "T" => Suffix::Decimal(12),
        "P" => Suffix::Decimal(15),
        "E" => Suffix::Decimal(18),
        "Ki" => Suffix::Binary(10),
        "Mi" => Suffix::Binary(20),
        "Gi" => Suffix::Binary(30),
        "Ti" => Suffix::Binary(40),
        "Pi" => Suffix::Binary(50),
        "Ei" => Suffix::Binary(60),
        _ => Suffix::Decimal(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// Not above `CAP` by much: the caller cuts it.
fn binary(whole: &str, fraction: &str, shift: u32) -> i128 {
    let whole = digits(whole);
    if whole > CAP >> shift {
        return CAP;
    }
    let (kept, rest) = fraction.split_at(fraction.len().min(FRACTION_DIGITS));
    let rounded_up = i128::from(rest.bytes().any(|digit| digit != b'0'));
    let padding = u32::try_from(FRACTION_DIGITS - kept.len()).unwrap_or(0);
    let fraction = digits(kept) * 10_i128.pow(padding) + rounded_up;
    (whole << shift) * NANOS + divide_up(fraction << shift, NANOS)
}

fn decimal(whole: &str, fraction: &str, exponent: i64) -> i128 {
    let mantissa = digits(&format!("{whole}{fraction}"));
    if mantissa == 0 {
        return 0;
    }
    let scale = exponent.saturating_add(9).saturating_sub(fraction.len() as i64);
    let power = u32::try_from(scale.unsigned_abs()).ok().and_then(|p| 10_i128.checked_pow(p));
    match power {
        Some(power) if scale >= 0 => mantissa.checked_mul(power).unwrap_or(CAP),
        Some(power) => divide_up(mantissa, power),
        None if scale >= 0 => CAP,
        None => 1,
    }
}

/// At most 32 digits, so it fits.
fn digits(text: &str) -> i128 {
    text.bytes().fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'))
}

fn divide_up(value: i128, by: i128) -> i128 {
    (value + by - 1) / by
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_kubernetes_is_read() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1),
            ("+5", 5),
            ("1.", 1),
            (".5Ki", 512),
            ("1.5Gi", 1_610_612_736),
            ("64Mi", 67_108_864),
            ("2Ti", 2_199_023_255_552),
            ("1k", 1000),
            ("1M", 1_000_000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("12e-1", 2),
            ("100m", 1),
            ("2500m", 3),
            ("1n", 1),
            ("1.0000000000000000000000001Ti", 1_099_511_627_777),
            ("9Ei", i64::MAX as u64),
            ("99999999999999999999999999999999", i64::MAX as u64),
            ("1e999999999", i64::MAX as u64),
            ("0e999999999", 0),
            ("1e-999999999", 1),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_quantity() {
        for text in [
            "",
            "-",
            "+",
            ".",
            "Mi",
            "1 Mi",
            "1mi",
            "1KiB",
            "1e",
            "1e1.5",
            "1.2.3",
            "--1",
            "1K",
            "1ki",
            "0x10",
            "1_000",
            "١",
            "1é",
            "inf",
            "1e99999999999999999999",
            "100000000000000000000000000000000",
        ] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_quantity_below_zero_is_compared_but_is_no_size() {
        assert_eq!(nanos("-1"), Some(-NANOS));
        assert_eq!(bytes("-1"), None);
        assert_eq!(bytes("-1n"), None);
        assert_eq!(bytes("-0"), Some(0));
    }

    proptest! {
        #[test]
        fn a_written_size_is_read_back(count in 0_u64..8_388_608, unit in 0_usize..4) {
            let (suffix, factor) =
                [("", 1_u64), ("Ki", 1 << 10), ("Gi", 1 << 30), ("Ti", 1 << 40)][unit];
            prop_assert_eq!(bytes(&format!("{count}{suffix}")), Some(count * factor));
        }

        #[test]
        fn a_larger_number_is_a_larger_quantity(a in 0_u32.., b in 0_u32.., tail in "(|\\.5)(|n|m|k|M|Ki|Gi|e2|E-3)") {
            let (low, high) = (a.min(b), a.max(b));
            let (low, high) = (format!("{low}{tail}"), format!("{high}{tail}"));
            prop_assert!(nanos(&low) <= nanos(&high));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = bytes(&text);
        }

        #[test]
        fn no_number_makes_it_panic(text in "[-+]?[0-9.]{0,32}(|[KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,20})") {
            let _ = bytes(&text);
        }
    }
}
