//! The id of a log session says all that any replica needs to go on with it. Pure.

use jiff::Timestamp;

use super::render::Line;

/// What the ids of this form begin with.
const FORM: &str = "1";

/// A log as one caller gets it: byte 0 is the beginning of `first`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The pod. Never another one: a log does not go on in the next pod.
    pub pod_uid: String,
    /// The container.
    pub container: String,
    /// Whether the lines begin with timestamps.
    pub timestamps: bool,
    /// The first line that was delivered.
    pub first: Line,
}

impl Session {
    /// Its id.
    pub fn id(&self) -> String {
        let Session {
            pod_uid,
            container,
            timestamps,
            first: Line { at, nth },
        } = self;
        let timestamps = if *timestamps { "t" } else { "p" };
        format!("{FORM}:{pod_uid}:{container}:{timestamps}:{}:{nth}", at.as_nanosecond())
    }

    /// The session with this id, if there can be one.
    pub fn parse(id: &str) -> Option<Session> {
        let mut parts = id.split(':');
        let mut part = || parts.next();
        if part()? != FORM {
            return None;
        }
        let session = Session {
            pod_uid: part()?.into(),
            container: part()?.into(),
            timestamps: part()? == "t",
            first: Line {
                at: Timestamp::from_nanosecond(part()?.parse().ok()?).ok()?,
                nth: part()?.parse().ok()?,
            },
        };
        // One way to write each: whatever else parses is not ours.
        (session.id() == id).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is_one() {
        let session = Session {
            pod_uid: "5b1e".into(),
            container: "main".into(),
            timestamps: true,
            first: Line {
                at: "2026-11-23T13:00:00.123456789Z".parse().unwrap(),
                nth: 2,
            },
        };
        let id = session.id();
        assert_eq!(id, "1:5b1e:main:t:1795438800123456789:2");
        assert_eq!(Session::parse(&id), Some(session));
        for broken in [
            "",
            "1",
            "2:5b1e:main:t:1:2",
            "1:5b1e:main:x:1:2",
            "1:5b1e:main:t:1:2:3",
            "1:5b1e:main:t:+1:2",
            "1:5b1e:main:t:1:-2",
            &id[..id.len() - 1],
        ] {
            assert_eq!(Session::parse(broken), None, "{broken}");
        }
        assert_eq!(Session::parse(&format!("1:a:b:p:{}:0", "9".repeat(40))), None);
    }
}
