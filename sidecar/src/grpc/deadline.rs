//! How long a call may take: what its client says in `grpc-timeout`, parsed as the gRPC protocol has it, for the transport
//! would drop the call at its end where it can still be answered with what is there.

use std::time::Duration;

use tonic::metadata::MetadataMap;

use crate::error::{Error, ErrorKind};

/// The header.
const HEADER: &str = "grpc-timeout";
/// What a call may take whose client does not say.
const UNSAID: Duration = Duration::from_secs(30);
/// How long before its client's deadline a call is answered: this, or a share of its time, if that is more.
const LEAST_MARGIN: Duration = Duration::from_millis(2);
/// The share is one in this many.
const MARGIN_SHARE: u32 = 20;
/// Digits that a number of the header may have.
const MOST_DIGITS: usize = 8;
/// What the header may be, for sentences.
const ALLOWED: &str = "is no timeout; 1 to 8 digits and one of H, M, S, m, u, n are allowed";

/// How long a call with these headers may take, less what the way back takes.
///
/// # Errors
/// The header is malformed.
pub(super) fn of(headers: &MetadataMap) -> Result<Duration, Error> {
    Ok(said(headers)?.unwrap_or(UNSAID))
}

/// The same; `None`: the client does not say.
///
/// # Errors
/// The header is malformed.
pub(super) fn said(headers: &MetadataMap) -> Result<Option<Duration>, Error> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_encoded_bytes());
    let timeout = parse(&text)
        .ok_or_else(|| Error::of_field(ErrorKind::Malformed, HEADER, &text, ALLOWED))?;
    Ok(Some(timeout.saturating_sub(LEAST_MARGIN.max(timeout / MARGIN_SHARE))))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty()
        || digits.len() > MOST_DIGITS
        || !digits.bytes().all(|d| d.is_ascii_digit())
    {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(value: &str) -> Result<Duration, Error> {
        let mut headers = MetadataMap::new();
        headers.insert(HEADER, value.parse().unwrap());
        of(&headers)
    }

    #[test]
    fn a_call_is_answered_a_little_before_its_deadline() {
        for (header, micros) in [
            ("1S", 950_000),
            ("100m", 95_000),
            ("20m", 18_000),
            ("3000u", 1_000),
            ("1m", 0),
            ("5n", 0),
            ("2M", 114_000_000),
            ("1H", 3_420_000_000),
            ("0S", 0),
        ] {
            assert_eq!(with(header).unwrap(), Duration::from_micros(micros), "{header}");
        }
        assert_eq!(of(&MetadataMap::new()).unwrap(), UNSAID);
        // The longest that the protocol has is no overflow.
        assert!(with("99999999H").unwrap() > Duration::from_secs(3600 * 90_000_000));
    }

    #[test]
    fn what_is_no_timeout_is_named() {
        for header in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "1SS", "١S"]
        {
            let mut headers = MetadataMap::new();
            let value = tonic::metadata::MetadataValue::try_from(header.as_bytes());
            headers.insert(HEADER, value.unwrap());
            let error = of(&headers).unwrap_err();
            assert_eq!(
                (error.kind, error.field.as_str()),
                (ErrorKind::Malformed, HEADER),
                "{header}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in prop::collection::vec(0x20_u8..0x7f, 0..20)) {
            let text = String::from_utf8(bytes).unwrap();
            let is_right = parse(&text).is_some();
            let digits = text.trim_end_matches(['H', 'M', 'S', 'm', 'u', 'n']);
            let looks_right = text.len() == digits.len() + 1
                && (1..=8).contains(&digits.len())
                && digits.bytes().all(|digit| digit.is_ascii_digit());
            prop_assert_eq!(is_right, looks_right, "{:?}", text);
        }
    }
}
