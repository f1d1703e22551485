//! The `grpc-timeout` header: how long a caller waits for the end of its call. tonic enforces it only until the
//! response begins.

use std::time::Duration;
use tonic::metadata::MetadataMap;

/// The timeout that the caller of a call has set. A malformed one counts as none.
pub fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get("grpc-timeout")?.to_str().ok()?)
}

/// At most 8 digits and a unit, as the gRPC specification has it.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_hours(n),
        "M" => Duration::from_mins(n),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_a_unit_are_parsed() {
        for (text, expected) in [
            ("2H", Some(Duration::from_hours(2))),
            ("3M", Some(Duration::from_mins(3))),
            ("300S", Some(Duration::from_secs(300))),
            ("15m", Some(Duration::from_millis(15))),
            ("7u", Some(Duration::from_micros(7))),
            ("1n", Some(Duration::from_nanos(1))),
            ("99999999H", Some(Duration::from_secs(359_999_996_400))),
            ("", None),
            ("S", None),
            ("1", None),
            ("5x", None),
            ("-1S", None),
            ("123456789S", None),
        ] {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(grpc_timeout(&metadata), expected, "{text}");
        }
        assert_eq!(parse("1é"), None);
        assert_eq!(grpc_timeout(&MetadataMap::new()), None);
    }
}
