//! Durations as GEP-2257 writes them: one to four numbers of at most five digits, each with h, m, s or ms.

use std::time::Duration;

/// The most numbers of one duration.
const MAX_PARTS: usize = 4;
/// The most digits of one number.
const MAX_DIGITS: usize = 5;

/// The time that a text such as `1h30m` means; `None` for a text that is not a duration.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..MAX_PARTS {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=MAX_DIGITS).contains(&digits) {
            return None;
        }
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = unit(tail)?;
        total += unit * number.parse::<u32>().ok()?;
        rest = tail;
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

fn unit(text: &str) -> Option<(Duration, &str)> {
    [
        ("ms", Duration::from_millis(1)),
        ("h", Duration::from_secs(3600)),
        ("m", Duration::from_secs(60)),
        ("s", Duration::from_secs(1)),
    ]
    .into_iter()
    .find_map(|(name, unit)| text.strip_prefix(name).map(|tail| (unit, tail)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_gep_2257_is_read() {
        for (text, expected) in [
            ("0s", 0),
            ("50ms", 50),
            ("1m5s", 65_000),
            ("1h30m", 5_400_000),
            ("24h", 86_400_000),
            ("1h2m3s4ms", 3_723_004),
            ("1s1s", 2000),
            ("99999h", 359_996_400_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(expected)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_duration() {
        for text in [
            "",
            "0",
            "1",
            "h",
            "1d",
            "1.5h",
            "-1s",
            "100000s",
            "1s2s3s4s5s",
            "1 s",
            "1S",
            "1us",
            "1h ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_is_read_back(h in 0_u32..100_000, m in 0_u32..60, s in 0_u32..60, ms in 0_u32..1000) {
            let expected = Duration::from_secs(u64::from(h) * 3600 + u64::from(m * 60 + s))
                + Duration::from_millis(ms.into());
            prop_assert_eq!(parse(&format!("{h}h{m}m{s}s{ms}ms")), Some(expected));
        }

        #[test]
        fn exactly_the_pattern_is_read(text in "[0-9hms]{0,12}") {
            let pattern = regex::Regex::new(crate::v1alpha1::DURATION_PATTERN).unwrap();
            prop_assert_eq!(parse(&text).is_some(), pattern.is_match(&text));
        }
    }
}
