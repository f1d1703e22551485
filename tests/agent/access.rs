//! Authentication.

use crate::support::{Agent, POD, key, now, public, run, start};
use sandbox_operator::proto::agent::{ReadFileRequest, StopRequest};
use sandbox_operator::token::{self, sign};
use std::time::Duration;
use tokio::time::timeout;
use tonic::Code;

#[tokio::test]
async fn only_a_valid_token_of_a_known_key_is_accepted() {
    let agent = Agent::start(&[]);
    let good = sign(&agent.key, POD, now());
    for (what, authorization) in [
        ("nothing", None),
        ("empty", Some(String::new())),
        ("no token", Some("Bearer ".to_owned())),
        ("malformed", Some("Bearer abc".to_owned())),
        ("cut", Some(format!("Bearer {}", &good[..good.len() - 4]))),
        ("another scheme", Some(format!("Basic {good}"))),
        ("no scheme", Some(good.clone())),
        ("forged", Some(format!("Bearer {}", sign(&key(), POD, now())))),
        (
            "another pod",
            Some(format!("Bearer {}", sign(&agent.key, "another", now()))),
        ),
        (
            "expired",
            Some(format!(
                "Bearer {}",
                sign(&agent.key, POD, now() - token::LIFETIME_SECONDS - 60)
            )),
        ),
        (
            "of the future",
            Some(format!("Bearer {}", sign(&agent.key, POD, now() + 3600))),
        ),
    ] {
        let mut client = agent.client_with(authorization).await;
        let read = client
            .read_file(ReadFileRequest::default())
            .await
            .map(|_| ())
            .unwrap_err();
        assert_eq!(read.code(), Code::Unauthenticated, "{what}");
        let stop = client.stop(StopRequest::default()).await.map(|_| ()).unwrap_err();
        assert_eq!(stop.code(), Code::Unauthenticated, "{what}");
        // Refused before anything is sent.
        let exec = timeout(Duration::from_secs(5), client.exec(tokio_stream::pending())).await;
        assert_eq!(
            exec.unwrap().map(|_| ()).unwrap_err().code(),
            Code::Unauthenticated,
            "{what}"
        );
        let write = timeout(Duration::from_secs(5), client.write_file(tokio_stream::pending())).await;
        assert_eq!(
            write.unwrap().map(|_| ()).unwrap_err().code(),
            Code::Unauthenticated,
            "{what}"
        );
    }
    let ended = run(&agent.client().await, start(&["true"])).await;
    assert_eq!(ended.exit, Some(0));
}

#[tokio::test]
async fn tokens_of_every_given_key_are_accepted() {
    let other = key();
    let agent = Agent::with(crate::support::free_port(), &["--key", &public(&other)], &[]);
    for key in [&agent.key, &other] {
        let client = agent
            .client_with(Some(format!("Bearer {}", sign(key, POD, now()))))
            .await;
        assert_eq!(run(&client, start(&["true"])).await.exit, Some(0));
    }
}
