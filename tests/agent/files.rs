//! Reading and writing files.

use crate::support::{Agent, Client, PATIENCE, within};
use sandbox_operator::proto::agent::write_file_request::Message;
use sandbox_operator::proto::agent::{ReadFileRequest, WriteFileRequest, WriteFileStart};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

async fn read(client: &Client, path: &str, max_bytes: u64) -> Result<Vec<u8>, Status> {
    let request = ReadFileRequest {
        path: path.into(),
        max_bytes,
    };
    let mut chunks = timeout(PATIENCE, client.clone().read_file(request))
        .await
        .unwrap()?
        .into_inner();
    let mut data = vec![];
    while let Some(chunk) = timeout(PATIENCE, chunks.message()).await.unwrap()? {
        assert!(chunk.data.len() <= 1024 * 1024);
        data.extend_from_slice(&chunk.data);
    }
    Ok(data)
}

fn begin(path: &str, mode: Option<u32>) -> WriteFileRequest {
    let path = path.into();
    WriteFileRequest {
        message: Some(Message::Start(WriteFileStart { path, mode })),
    }
}

fn data(bytes: &[u8]) -> WriteFileRequest {
    WriteFileRequest {
        message: Some(Message::Data(bytes.to_vec().into())),
    }
}

async fn write(client: &Client, path: &str, content: &[u8], mode: Option<u32>) -> Result<(), Status> {
    let requests: Vec<_> = std::iter::once(begin(path, mode))
        .chain(content.chunks(1024 * 1024).map(data))
        .collect();
    let mut client = client.clone();
    timeout(PATIENCE, client.write_file(tokio_stream::iter(requests)))
        .await
        .unwrap()
        .map(drop)
}

fn reason(status: &Status) -> (Code, String, Option<String>) {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "sandbox-operator.dev");
    (status.code(), info.reason, info.metadata.get("size_bytes").cloned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn files_of_any_size_are_written_and_read() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let large: Vec<u8> = (0..40 * 1024 * 1024 / 4).flat_map(|n: u32| n.to_le_bytes()).collect();
    for (path, content) in [("empty", &b""[..]), ("new/folder/small", b"hello"), ("large", &large)] {
        write(&client, path, content, None).await.unwrap();
        let there = agent.directory.join(path);
        assert!(fs::read(&there).unwrap() == content, "{path}");
        assert_eq!(mode(&there), 0o644);
        assert!(read(&client, path, 0).await.unwrap() == content, "{path}");
        assert!(
            read(&client, there.to_str().unwrap(), content.len() as u64)
                .await
                .unwrap()
                == content,
            "{path}"
        );
    }
    write(&client, "script", b"#!", Some(0o750)).await.unwrap();
    assert_eq!(mode(&agent.directory.join("script")), 0o750);
    // A file that reports no size.
    assert!(
        read(&client, "/proc/self/status", 0)
            .await
            .unwrap()
            .starts_with(b"Name:")
    );
    let status = read(&client, "/proc/self/status", 10).await.unwrap_err();
    assert_eq!(reason(&status), (Code::FailedPrecondition, "TOO_LARGE".into(), None));
    assert!(agent.memory().0 < 32 * 1024, "{} KiB", agent.memory().0);
}

#[tokio::test]
async fn a_replaced_file_keeps_its_mode_and_a_link_its_target() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let (script, link) = (agent.directory.join("script"), agent.directory.join("link"));
    fs::write(&script, "an older and longer one").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(agent.directory.join("folder")).unwrap();
    symlink("../script", agent.directory.join("folder/script")).unwrap();
    symlink("folder/script", &link).unwrap();
    symlink("made-by-link", agent.directory.join("dangling")).unwrap();
    write(&client, "link", b"new", Some(0o666)).await.unwrap();
    assert_eq!(
        (fs::read_to_string(&script).unwrap().as_str(), mode(&script)),
        ("new", 0o700)
    );
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    write(&client, "dangling", b"x", None).await.unwrap();
    assert_eq!(fs::read(agent.directory.join("made-by-link")).unwrap(), b"x");
    let mut left = names(&agent.directory.0);
    left.sort();
    assert_eq!(left, ["dangling", "folder", "link", "made-by-link", "script"]);
}

#[tokio::test]
async fn failed_reads_and_writes_report_the_reason_and_do_not_block() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    fs::create_dir(agent.directory.join("folder")).unwrap();
    fs::write(agent.directory.join("file"), "12345").unwrap();
    symlink("loop", agent.directory.join("loop")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(agent.directory.join("pipe"))
        .status()
        .unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(agent.directory.join("socket")).unwrap();
    let no_size = None::<String>;
    for (path, code, why) in [
        ("none", Code::NotFound, "NOT_FOUND"),
        ("", Code::NotFound, "NOT_FOUND"),
        ("file/below", Code::NotFound, "NOT_FOUND"),
        ("folder", Code::FailedPrecondition, "IS_DIRECTORY"),
        ("pipe", Code::FailedPrecondition, "IO_FAILED"),
        ("socket", Code::FailedPrecondition, "IO_FAILED"),
        ("/dev/zero", Code::FailedPrecondition, "IO_FAILED"),
        ("loop", Code::Internal, "IO_FAILED"),
        ("nul\0", Code::InvalidArgument, "IO_FAILED"),
    ] {
        let status = read(&client, path, 0).await.unwrap_err();
        assert_eq!(
            reason(&status),
            (code, why.into(), no_size.clone()),
            "read {path}: {status}"
        );
        if path != "none" {
            let status = write(&client, path, b"x", None).await.unwrap_err();
            assert_eq!(
                reason(&status),
                (code, why.into(), no_size.clone()),
                "write {path}: {status}"
            );
        }
    }
    let status = read(&client, "file", 4).await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "TOO_LARGE".into(), Some("5".into()))
    );
    let status = write(&client, "new/", b"x", None).await.unwrap_err();
    assert_eq!(reason(&status).1, "IS_DIRECTORY");
    let status = write(&client, "/proc/none", b"x", None).await.unwrap_err();
    assert!(
        ["NOT_FOUND", "PERMISSION_DENIED"].contains(&reason(&status).1.as_str()),
        "{status}"
    );
    if Path::new("/dev/full").exists() {
        let status = write(&client, "/sys/kernel/none", b"x", None).await.unwrap_err();
        assert_eq!(reason(&status).1, "PERMISSION_DENIED", "{status}");
    }
}

#[tokio::test]
async fn a_cancelled_write_changes_nothing() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    fs::write(agent.directory.join("file"), "old").unwrap();
    let (requests, stream) = mpsc::channel(4);
    let call = tokio::spawn(async move { client.clone().write_file(ReceiverStream::new(stream)).await.map(drop) });
    requests.send(begin("file", None)).await.unwrap();
    requests.send(data(&[0; 1024 * 1024])).await.unwrap();
    within("the temporary file", async || {
        (names(&agent.directory.0).len() == 2).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    call.abort();
    within("its end", async || {
        (names(&agent.directory.0) == ["file"]).then_some(())
    })
    .await;
    assert!(fs::read(agent.directory.join("file")).unwrap() == b"old");
}

#[tokio::test]
async fn slow_readers_do_not_block_other_calls() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    fs::write(agent.directory.join("large"), vec![0; 8 * 1024 * 1024]).unwrap();
    fs::write(agent.directory.join("small"), "x").unwrap();
    let mut slow = vec![];
    for _ in 0..20 {
        let request = ReadFileRequest {
            path: "large".into(),
            max_bytes: 0,
        };
        slow.push(client.clone().read_file(request).await.unwrap());
    }
    assert_eq!(read(&client, "small", 0).await.unwrap(), b"x");
    write(&client, "other", b"y", None).await.unwrap();
}
