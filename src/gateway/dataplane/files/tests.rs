use super::*;
use tonic_types::ErrorDetails;

fn from_agent(reason: &str, facts: &[(&str, &str)]) -> Status {
    let facts: std::collections::HashMap<_, _> =
        facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Status::with_error_details(
        Code::Unknown,
        "from\nthe agent",
        ErrorDetails::with_error_info(reason, "agent", facts),
    )
}

#[test]
fn every_file_error_of_the_agent_has_a_reason_of_the_sdk() {
    for (agent_reason, reason) in [
        ("NOT_FOUND", "CWSANDBOX_FILE_NOT_FOUND"),
        ("IS_DIRECTORY", "CWSANDBOX_FILE_IS_DIRECTORY"),
        ("PERMISSION_DENIED", "CWSANDBOX_FILE_PERMISSION_DENIED"),
        ("TOO_LARGE", "CWSANDBOX_FILE_TOO_LARGE"),
        ("IO_FAILED", "CWSANDBOX_FILE_IO_FAILED"),
    ] {
        let status = file_error(&from_agent(agent_reason, &[]), "/a", 7).unwrap();
        let info = status.get_error_details().error_info().cloned().unwrap();
        assert_eq!(
            (
                info.reason.as_str(),
                info.domain.as_str(),
                info.metadata["filepath"].as_str()
            ),
            (reason, "cwsandbox.com", "/a")
        );
    }
    assert!(file_error(&from_agent("SOMETHING", &[]), "/a", 7).is_none());
    assert!(file_error(&Status::unavailable("gone"), "/a", 7).is_none());
}

#[test]
fn errors_have_size_and_limit() {
    let facts = |status: Status| status.get_error_details().error_info().cloned().unwrap().metadata;
    let valid = facts(file_error(&from_agent("TOO_LARGE", &[("size_bytes", "9")]), "/a", 7).unwrap());
    assert_eq!(
        (valid["size_bytes"].as_str(), valid["max_size_bytes"].as_str()),
        ("9", "7")
    );
    let invalid = facts(file_error(&from_agent("TOO_LARGE", &[("size_bytes", "-1\n")]), "/a", 7).unwrap());
    assert_eq!(invalid["size_bytes"], "8");
}

#[test]
fn a_file_is_sent_in_chunks() {
    let sizes = |n: usize| {
        let parts = messages("/a".into(), Bytes::from(vec![0; n])).skip(1);
        parts
            .map(|m| {
                if let Some(Message::Data(d)) = m.message {
                    d.len()
                } else {
                    0
                }
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(0), Vec::<usize>::new());
    assert_eq!(sizes(MAX_PIECE), [MAX_PIECE]);
    assert_eq!(sizes(2 * MAX_PIECE + 3), [MAX_PIECE, MAX_PIECE, 3]);
}

#[test]
fn a_path_is_checked() {
    assert!(check("a", "hello.txt").is_ok());
    for path in ["", "a\0b", &"x".repeat(MAX_PATH + 1)] {
        assert!(check("a", path).unwrap_err().message().starts_with("path"));
    }
    assert!(check("", "/a").is_err());
}
