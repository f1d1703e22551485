//! ReadFile and WriteFile.

use tonic::Code;
use tonic_types::StatusExt;

use super::support::*;
use sandbox_operator::proto::sandbox as pb;

fn read(path: &str) -> pb::ReadFileRequest {
    pb::ReadFileRequest {
        sandbox_id: "box".into(),
        path: path.into(),
        container: String::new(),
    }
}

fn write(path: &str, content: Vec<u8>) -> pb::WriteFileRequest {
    pb::WriteFileRequest {
        sandbox_id: "box".into(),
        path: path.into(),
        content: content.into(),
        container: "main".into(),
    }
}

#[tokio::test]
async fn a_file_is_read_as_it_was_written() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    for (path, size) in [("hello.txt", 5), ("new/folder/big", 1 << 20), ("empty", 0)] {
        let content: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        client.write_file(write(path, content.clone())).await.unwrap();
        assert_eq!(
            std::fs::read(agent.folder.join(path)).unwrap(),
            content,
            "relative to the working directory"
        );
        assert_eq!(
            client.read_file(read(path)).await.unwrap().into_inner().content,
            content
        );
    }
}

#[tokio::test]
async fn file_errors_have_a_reason_and_the_path() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    std::fs::write(agent.folder.join("big"), vec![0; (1 << 20) + 1]).unwrap();
    let facts = |status: tonic::Status| status.get_error_details().error_info().cloned().unwrap();
    for (path, expected) in [
        ("missing", "CWSANDBOX_FILE_NOT_FOUND"),
        ("/", "CWSANDBOX_FILE_IS_DIRECTORY"),
        ("big", "CWSANDBOX_FILE_TOO_LARGE"),
    ] {
        let info = facts(client.read_file(read(path)).await.unwrap_err());
        assert_eq!(
            (info.reason.as_str(), info.metadata["filepath"].as_str()),
            (expected, path)
        );
        if path == "big" {
            assert_eq!(
                (
                    info.metadata["size_bytes"].as_str(),
                    info.metadata["max_size_bytes"].as_str()
                ),
                ("1048577", "1048576")
            );
        }
    }
    let info = facts(
        client
            .write_file(write("big", vec![0; (1 << 20) + 1]))
            .await
            .unwrap_err(),
    );
    assert_eq!(info.reason, "CWSANDBOX_FILE_TOO_LARGE");
}

#[tokio::test]
async fn the_container_must_exist_and_run() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    let other = pb::ReadFileRequest {
        container: "other".into(),
        ..read("a")
    };
    let status = client.read_file(other).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message().contains("other")),
        (Code::InvalidArgument, true)
    );
    let nobody = pb::ReadFileRequest {
        sandbox_id: "../x".into(),
        ..read("a")
    };
    assert_eq!(client.read_file(nobody).await.unwrap_err().code(), Code::NotFound);
    world.set_state("COMPLETED");
    let status = client.read_file(read("a")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).0.as_str()),
        (Code::FailedPrecondition, "CWSANDBOX_SANDBOX_NOT_RUNNING")
    );
}
