//! The id of a log session contains all that a replica needs to resume it. Pure.

use jiff::Timestamp;

use super::render::{Line, Start};

/// The version of the ids' format.
const VERSION: &str = "1";

/// A log as it is sent to one caller. Offset 0 is the beginning of `first`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The pod's UID: a log does not continue in another pod.
    pub(super) pod_uid: String,
    /// The container.
    pub(super) container: String,
    /// Whether the lines begin with timestamps.
    pub(super) timestamps: bool,
    /// The first line that was delivered.
    pub(super) first: Line,
    /// A later line from which to resume, since nodes do not keep a log for ever.
    pub(super) checkpoint: Line,
    /// The offset of that line.
    pub(super) offset: u64,
}

impl Session {
    /// Its id.
    pub(super) fn id(&self) -> String {
        let Session {
            pod_uid,
            container,
            timestamps,
            first,
            checkpoint,
            offset,
        } = self;
        let timestamps = if *timestamps { "t" } else { "p" };
        let (first, checkpoint) = (text(first), text(checkpoint));
        format!("{VERSION}:{pod_uid}:{container}:{timestamps}:{first}:{checkpoint}:{offset}")
    }

    /// The session with this id, if there can be one.
    pub(super) fn parse(id: &str) -> Option<Session> {
        let mut parts = id.split(':');
        if parts.next()? != VERSION {
            return None;
        }
        let session = Session {
            pod_uid: parts.next()?.into(),
            container: parts.next()?.into(),
            timestamps: parts.next()? == "t",
            first: line(&mut parts)?,
            checkpoint: line(&mut parts)?,
            offset: parts.next()?.parse().ok()?,
        };
        // Each session has one id; anything else that parses is not ours.
        (session.id() == id).then_some(session)
    }

    /// Where the byte at `offset` is read from.
    pub(super) fn start(&self, offset: u64) -> Start {
        let (line, skip) = match offset.checked_sub(self.offset) {
            Some(skip) => (self.checkpoint, skip),
            None => (self.first, offset),
        };
        Start::Resume { line, skip }
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
            checkpoint: line("2026-11-23T13:00:01Z", 0),
            offset: 70,
        }
    }

    #[test]
    fn an_id_parses_to_its_session_and_nothing_else_does() {
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
    fn offsets_before_the_checkpoint_start_at_the_first_line() {
        let session = session();
        for (offset, line, skip) in [
            (0, session.first, 0),
            (69, session.first, 69),
            (70, session.checkpoint, 0),
            (75, session.checkpoint, 5),
        ] {
            assert_eq!(session.start(offset), Start::Resume { line, skip });
        }
    }
}
