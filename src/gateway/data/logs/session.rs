//! The id of a log session says all that any replica needs to go on with it. Pure.

use jiff::Timestamp;

use super::render::{Line, Start};

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
    /// A later line from which to go on, since nodes do not keep a log for ever.
    pub later: Line,
    /// Where in what the caller gets that line begins.
    pub offset: u64,
}

impl Session {
    /// Its id.
    pub fn id(&self) -> String {
        let Session {
            pod_uid,
            container,
            timestamps,
            first,
            later,
            offset,
        } = self;
        let timestamps = if *timestamps { "t" } else { "p" };
        let (first, later) = (text(first), text(later));
        format!("{FORM}:{pod_uid}:{container}:{timestamps}:{first}:{later}:{offset}")
    }

    /// The session with this id, if there can be one.
    pub fn parse(id: &str) -> Option<Session> {
        let mut parts = id.split(':');
        if parts.next()? != FORM {
            return None;
        }
        let session = Session {
            pod_uid: parts.next()?.into(),
            container: parts.next()?.into(),
            timestamps: parts.next()? == "t",
            first: line(&mut parts)?,
            later: line(&mut parts)?,
            offset: parts.next()?.parse().ok()?,
        };
        // One way to write each: whatever else parses is not ours.
        (session.id() == id).then_some(session)
    }

    /// Where to begin for what comes after so many bytes.
    pub fn start(&self, offset: u64) -> Start {
        let (line, skip) = match offset.checked_sub(self.offset) {
            Some(skip) => (self.later, skip),
            None => (self.first, offset),
        };
        Start::Exactly { line, skip, last: false }
    }
}

fn text(Line { at, nth }: &Line) -> String {
    format!("{}:{nth}", at.as_nanosecond())
}

fn line<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Line> {
    Some(Line {
        at: Timestamp::from_nanosecond(parts.next()?.parse().ok()?).ok()?,
        nth: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let line = |text: &str, nth| Line {
            at: text.parse().unwrap(),
            nth,
        };
        Session {
            pod_uid: "5b1e".into(),
            container: "main".into(),
            timestamps: true,
            first: line("2026-11-23T13:00:00.123456789Z", 2),
            later: line("2026-11-23T13:00:01Z", 0),
            offset: 70,
        }
    }

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is_one() {
        let id = session().id();
        assert_eq!(id, "1:5b1e:main:t:1795438800123456789:2:1795438801000000000:0:70");
        assert_eq!(Session::parse(&id), Some(session()));
        for broken in [
            "",
            "1",
            "2:5b1e:main:t:1:2:3:4:5",
            "1:5b1e:main:x:1:2:3:4:5",
            "1:5b1e:main:t:1:2:3:4",
            "1:5b1e:main:t:1:2:3:4:5:6",
            "1:5b1e:main:t:+1:2:3:4:5",
            "1:5b1e:main:t:1:-2:3:4:5",
            "1:5b1e:main:t:1:2:3:4:05",
        ] {
            assert_eq!(Session::parse(broken), None, "{broken}");
        }
        assert_eq!(Session::parse(&format!("1:a:b:p:{}:0:1:0:0", "9".repeat(40))), None);
    }

    #[test]
    fn what_was_before_the_later_line_is_found_from_the_first() {
        let session = session();
        for (offset, line, skip) in [
            (0, session.first, 0),
            (69, session.first, 69),
            (70, session.later, 0),
            (75, session.later, 5),
        ] {
            assert_eq!(session.start(offset), Start::Exactly { line, skip, last: false });
        }
    }
}
