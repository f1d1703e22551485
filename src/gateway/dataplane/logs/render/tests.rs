//! Each byte of a log is delivered once, wherever reads break, resume or meet a rotation.

use super::*;

/// A log as a kubelet has it: entries with times in seconds, and lines that have several parts.
fn log(lines: &[(&str, &str)]) -> String {
    lines
        .iter()
        .map(|(at, text)| format!("2026-11-23T13:00:{at}Z {text}"))
        .collect()
}

fn at(second: &str) -> Timestamp {
    format!("2026-11-23T13:00:{second}Z").parse().unwrap()
}

fn line(second: &str, nth: u32) -> Line {
    Line { at: at(second), nth }
}

/// What one read of `log` gives, in pieces of `piece` bytes; and where the next read goes on.
fn read(log: &[u8], start: Start, timestamps: bool, piece: usize) -> (Vec<u8>, Result<Start, RenderError>) {
    let mut renderer = Renderer::new(start, timestamps);
    let mut out = vec![];
    for bytes in log.chunks(piece.max(1)) {
        if let Err(trouble) = renderer.feed(bytes) {
            return (out, Err(trouble));
        }
        out.extend_from_slice(&renderer.take(false));
    }
    let end = renderer.end();
    out.extend_from_slice(&renderer.take(true));
    (out, end.map(|()| renderer.next()))
}

fn text(log: &str, start: Start, timestamps: bool) -> String {
    String::from_utf8(read(log.as_bytes(), start, timestamps, 7).0).unwrap()
}

#[test]
fn timestamps_are_removed_or_kept() {
    let log = log(&[("01.000000001", "one\n"), ("02.5", "\n"), ("03", "tail"), ("", "")]);
    let log = log.trim_end_matches("2026-11-23T13:00:Z ");
    assert_eq!(text(log, Start::Beginning, false), "one\n\ntail");
    assert_eq!(text(log, Start::Beginning, true), log);
    assert_eq!(text("", Start::Beginning, true), "");
    let elsewhere = "2026-11-23T15:00:01.5+02:00 there\n";
    assert_eq!(
        read(elsewhere.as_bytes(), Start::Beginning, false, 3),
        (
            b"there\n".to_vec(),
            Ok(Start::Resume {
                line: line("01.5", 0),
                skip: 6
            })
        )
    );
}

#[test]
fn a_start_is_exact_to_the_nanosecond_and_among_equals() {
    let log = log(&[
        ("01.1", "a\n"),
        ("01.2", "b\n"),
        ("01.2", "c\n"),
        ("01.2", "d\n"),
        ("01.9", "e\n"),
    ]);
    for (start, expected) in [
        (Start::Since(at("01.100000001")), "b\nc\nd\ne\n"),
        (Start::Since(at("01.1")), "a\nb\nc\nd\ne\n"),
        (Start::Since(at("02")), ""),
        (Start::From(line("01.2", 1)), "c\nd\ne\n"),
        (Start::From(line("01.5", 0)), "e\n"),
        (
            Start::Resume {
                line: line("01.2", 2),
                skip: 1,
            },
            "\ne\n",
        ),
        (
            Start::Resume {
                line: line("01.2", 0),
                skip: 4,
            },
            "d\ne\n",
        ),
    ] {
        assert_eq!(text(&log, start, false), expected, "{start:?}");
    }
}

#[test]
fn the_last_lines_are_found() {
    let log = log(&[
        ("01.1", "a\n"),
        ("01.2", "b\n"),
        ("01.2", "c\n"),
        ("01.9", "unfinished"),
    ]);
    for (wanted, start) in [
        (1, line("01.9", 0)),
        (2, line("01.2", 1)),
        (3, line("01.2", 0)),
        (9, line("01.1", 0)),
    ] {
        let mut renderer = Renderer::last_lines(wanted);
        renderer.feed(log.as_bytes()).unwrap();
        assert_eq!(renderer.start_of_last(), Start::From(start));
    }
    assert_eq!(Renderer::last_lines(3).start_of_last(), Start::Beginning);
}

#[test]
fn lines_out_of_order_keep_their_order() {
    let log = log(&[
        ("05.1", "out\n"),
        ("05.0", "err\n"),
        ("04.9", "err\n"),
        ("05.2", "out\n"),
    ]);
    assert_eq!(text(&log, Start::Since(at("05.1")), false), "out\nerr\nerr\nout\n");
    assert_eq!(
        text(
            &log,
            Start::Resume {
                line: line("05.0", 0),
                skip: 4
            },
            false
        ),
        "err\nout\n"
    );
    assert_eq!(
        Start::Since(at("05.1")).read_since(),
        Some(at("04")),
        "so the kubelet must not filter by it"
    );
    assert_eq!(Start::Beginning.read_since(), None);
    assert_eq!(Start::Since(Timestamp::MIN).read_since(), None);
}

#[test]
fn a_missing_line_is_a_gap() {
    let log = log(&[("05", "a\n"), ("07", "b\n")]);
    let gone = |second| {
        read(
            log.as_bytes(),
            Start::Resume {
                line: line(second, 0),
                skip: 0,
            },
            false,
            9,
        )
    };
    assert_eq!(gone("03"), (vec![], Err(RenderError::Gap)));
    assert_eq!(
        gone("06.9"),
        (vec![], Err(RenderError::Gap)),
        "at the end of the log at the latest"
    );
    assert_eq!(gone("09"), (vec![], Err(RenderError::Gap)));
    let equals = read(
        log.as_bytes(),
        Start::Resume {
            line: line("05", 1),
            skip: 0,
        },
        false,
        9,
    );
    assert_eq!(equals.1, Err(RenderError::Gap));
}

#[test]
fn messages_of_the_kubelet_are_errors() {
    let whole = log(&[("05", "a\n")]);
    let cut = format!("rest of a line that began before\n{whole}");
    assert_eq!(text(&cut, Start::Beginning, false), "a\n");
    for said in ["unable to retrieve container logs for containerd://1", "failed\n"] {
        for before in ["", &whole] {
            let (out, end) = read(format!("{before}{said}").as_bytes(), Start::Beginning, false, 4);
            assert_eq!(
                out,
                before
                    .strip_prefix("2026-11-23T13:00:05Z ")
                    .unwrap_or_default()
                    .as_bytes()
            );
            assert_eq!(end, Err(RenderError::Kubelet(said.trim().into())));
        }
    }
    let (_, end) = read("x".repeat(5000).as_bytes(), Start::Beginning, false, 999);
    assert!(matches!(end, Err(RenderError::Kubelet(said)) if said.len() < 1500));
}

#[test]
fn characters_are_not_cut_and_binary_data_passes() {
    let mut renderer = Renderer::new(Start::Beginning, false);
    renderer
        .feed("2026-11-23T13:00:05Z a€".as_bytes().split_last().unwrap().1)
        .unwrap();
    assert_eq!(renderer.take(false), "a");
    renderer.feed(&"€".as_bytes()[2..]).unwrap();
    assert_eq!(renderer.take(false), "€");
    renderer.feed(b"\xff\xfe\x80\x80\x80\x80").unwrap();
    assert_eq!(&renderer.take(false)[..], b"\xff\xfe\x80\x80\x80\x80");
    renderer.feed(b"\xf0\x9f").unwrap();
    assert_eq!((renderer.take(false).len(), renderer.take(true).len()), (0, 2));
}

/// A small deterministic source of cases.
struct Cases(u64);

impl Cases {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// A log with equal timestamps, some disorder, empty, long and binary lines, and sometimes an unfinished end.
    fn log(&mut self) -> Vec<u8> {
        let (mut log, mut now) = (vec![], 1_795_438_800_000_000_000_i128);
        let lines = 1 + self.below(8);
        for i in 0..lines {
            now += [0, 0, 1, 1_000, 400_000_000, -300_000_000, 2_000_000_000][self.below(7) as usize];
            let length = [0, 1, 5, 60][self.below(4) as usize];
            log.extend_from_slice(format!("{:.9} ", Timestamp::from_nanosecond(now).unwrap()).as_bytes());
            log.extend((0..length).map(|_| [b'a', b' ', 0xC3, 0xA9, 0xFF, b'2'][self.below(6) as usize]));
            if i + 1 < lines || self.below(3) > 0 {
                log.push(b'\n');
            }
        }
        log
    }
}

/// What the kubelet gives of `log` when asked for lines since a moment.
fn since(log: &[u8], start: Start) -> Vec<u8> {
    let Some(since) = start.read_since() else {
        return log.to_vec();
    };
    let lines = log.split_inclusive(|b| *b == b'\n');
    let kept = lines.filter(|l| std::str::from_utf8(&l[..30]).unwrap().parse::<Timestamp>().unwrap() >= since);
    kept.collect::<Vec<_>>().concat()
}

#[test]
fn every_offset_of_every_log_can_be_resumed() {
    let mut cases = Cases(7);
    for case in 0..100 {
        let log = cases.log();
        let timestamps = case % 2 == 0;
        let mut begun = Renderer::new(Start::Beginning, timestamps);
        begun.feed(&log).unwrap();
        let (whole, first) = (begun.take(true), begun.first().unwrap());
        for offset in 0..=whole.len() {
            let start = Start::Resume {
                line: first,
                skip: offset as u64,
            };
            let (rest, end) = read(&since(&log, start), start, timestamps, 1 + cases.below(50) as usize);
            assert!(end.is_ok(), "{end:?}");
            assert_eq!(rest, whole[offset..], "case {case}, offset {offset}");
        }
    }
}

#[test]
fn reads_that_break_anywhere_join_without_loss_or_duplicates() {
    let mut cases = Cases(11);
    for case in 0..300 {
        let log = cases.log();
        let timestamps = case % 2 == 0;
        let expected = read(&log, Start::Beginning, timestamps, 64).0;
        let (mut start, mut joined) = (Start::Beginning, vec![]);
        for _ in 0..4 {
            let visible = since(&log, start);
            let broken_at = cases.below(visible.len() as u64 + 1) as usize;
            let mut renderer = Renderer::new(start, timestamps);
            renderer.feed(&visible[..broken_at]).unwrap();
            joined.extend_from_slice(&renderer.take(true));
            start = renderer.next();
        }
        joined.extend_from_slice(&read(&since(&log, start), start, timestamps, 5).0);
        assert_eq!(joined, expected, "case {case}");
    }
}

#[test]
fn an_offset_past_the_end_is_detected() {
    let log = log(&[("05", "a\n")]);
    let mut renderer = Renderer::new(
        Start::Resume {
            line: line("05", 0),
            skip: 10,
        },
        false,
    );
    renderer.feed(log.as_bytes()).unwrap();
    assert_eq!(
        (renderer.end(), renderer.unskipped(), renderer.take(true).len()),
        (Ok(()), 8, 0)
    );
}

/// What a read of `log` delivers.
fn delivered(mut renderer: Renderer, log: &str) -> Result<String, RenderError> {
    renderer.feed(log.as_bytes()).and_then(|()| renderer.end())?;
    Ok(String::from_utf8(renderer.take(true).to_vec()).unwrap())
}

#[test]
fn a_read_that_needs_a_file_takes_no_other() {
    let log = log(&[("05", "a\n"), ("05.1", "b\n")]);
    let renderer = |start| Renderer::new(start, false);
    assert_eq!(
        delivered(renderer(Start::File(Some(at("05")))), &log).unwrap(),
        "a\nb\n"
    );
    assert_eq!(
        delivered(renderer(Start::File(Some(at("04.9")))), &log),
        Err(RenderError::Gap)
    );
    assert_eq!(
        delivered(renderer(Start::File(Some(at("05")))), ""),
        Err(RenderError::Gap)
    );
    assert_eq!(
        delivered(renderer(Start::File(None)), "").unwrap(),
        "",
        "it was empty and is"
    );
    assert_eq!(delivered(renderer(Start::File(None)), &log), Err(RenderError::Gap));
    let mut filled = renderer(Start::File(None));
    filled.expect_file(at("05"));
    assert_eq!(delivered(filled, &log).unwrap(), "a\nb\n");
    for (first, expected) in [("05", Ok("b\n".to_owned())), ("04", Err(RenderError::Gap))] {
        let mut whole = renderer(Start::Since(at("05.1")));
        whole.expect_file(at(first));
        assert_eq!(delivered(whole, &log), expected);
    }
}

#[test]
fn nothing_of_the_next_file_is_delivered() {
    let later = vec![at("06"), at("09")];
    for (next, expected) in [
        ("06", Err(RenderError::NextFile)),
        ("09", Err(RenderError::NextFile)),
        ("07.1", Err(RenderError::Gap)),
        ("06.3", Ok(())),
    ] {
        let mut renderer = Renderer::new(Start::Beginning, false);
        renderer.stop_at_files(later.clone());
        let log = log(&[("05", "a\n"), (next, "b\n")]);
        let result = renderer.feed(log.as_bytes());
        assert_eq!(
            &renderer.take(true)[..],
            if result.is_ok() { &b"a\nb\n"[..] } else { b"a\n" }
        );
        assert_eq!(result, expected, "{next}");
        if result != Err(RenderError::Gap) {
            assert_eq!(renderer.end(), Ok(()), "{next}");
        }
    }
}

#[test]
fn a_file_is_identified_by_its_first_timestamp() {
    assert_eq!(first_timestamp(b"2026-11-23T13:00:05.5Z x"), Some(at("05.5")));
    for none in ["", "2026-11-23T13:00:05.5Z", "unable to retrieve container logs"] {
        assert_eq!(first_timestamp(none.as_bytes()), None, "{none}");
    }
}
