//! The id of a log session says all that any replica needs to go on with it. Pure.

use jiff::Timestamp;

use super::render::Line;

/// What the ids of this form begin with.
const FORM: &str = "2";

/// A log as one caller gets it, known by one of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The pod. Never another one: a log does not go on in the next pod.
    pub pod_uid: String,
    /// The container.
    pub container: String,
    /// Whether the lines begin with timestamps.
    pub timestamps: bool,
    /// A line: the first that was delivered, later one that came after it, since nodes do not keep a log for ever.
    pub line: Line,
    /// Offset of its beginning in what the caller gets.
    pub offset: u64,
}

impl Session {
    /// Its id.
    pub fn id(&self) -> String {
        let Session {
            pod_uid,
            container,
            timestamps,
            line: Line { at, nth },
            offset,
        } = self;
        let timestamps = if *timestamps { "t" } else { "p" };
        format!("{FORM}:{pod_uid}:{container}:{timestamps}:{}:{nth}:{offset}", at.as_nanosecond())
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
            line: Line {
                at: Timestamp::from_nanosecond(part()?.parse().ok()?).ok()?,
                nth: part()?.parse().ok()?,
            },
            offset: part()?.parse().ok()?,
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
            line: Line {
                at: "2026-11-23T13:00:00.123456789Z".parse().unwrap(),
                nth: 2,
            },
            offset: 7,
        };
        let id = session.id();
        assert_eq!(id, "2:5b1e:main:t:1795438800123456789:2:7");
        assert_eq!(Session::parse(&id), Some(session));
        for broken in [
            "",
            "2",
            "1:5b1e:main:t:1:2:3",
            "2:5b1e:main:x:1:2:3",
            "2:5b1e:main:t:1:2",
            "2:5b1e:main:t:1:2:3:4",
            "2:5b1e:main:t:+1:2:3",
            "2:5b1e:main:t:1:-2:3",
            &id[..id.len() - 1],
        ] {
            assert_eq!(Session::parse(broken), None, "{broken}");
        }
        assert_eq!(Session::parse(&format!("2:a:b:p:{}:0:0", "9".repeat(40))), None);
    }
}
