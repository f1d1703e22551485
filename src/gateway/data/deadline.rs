//! The deadline that a caller gives a call.

use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::gateway::error::status;

/// The reason of a deadline that has passed.
const COMMAND_TIMEOUT: &str = "CWSANDBOX_COMMAND_TIMEOUT";

/// When the caller stops waiting, if ever.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Of a call that begins now.
    pub fn of(metadata: &MetadataMap) -> Deadline {
        let left = metadata.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
        Deadline(left.and_then(|left| Instant::now().checked_add(left)))
    }

    /// Comes when it has passed.
    pub async fn passed(self) -> Status {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        exceeded()
    }

    /// `work`, unless the deadline passes first.
    pub async fn within<T>(self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        tokio::select! {
            result = work => result,
            passed = self.passed() => Err(passed),
        }
    }
}

/// DEADLINE_EXCEEDED.
pub fn exceeded() -> Status {
    status(Code::DeadlineExceeded, COMMAND_TIMEOUT, "the deadline of the call has passed")
}

/// As gRPC writes it: at most 8 digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_writes_deadlines_with_a_unit() {
        for (text, expected) in [
            ("300S", Some(Duration::from_secs(300))),
            ("15m", Some(Duration::from_millis(15))),
            ("99999999H", Some(Duration::from_secs(359_999_996_400))),
            ("1n", Some(Duration::from_nanos(1))),
            ("", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("123456789S", None),
            ("1é", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
