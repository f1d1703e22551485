//! What Linux accepts as arguments and environment, where only the container knows the values.

use crate::support::{TestNamespace, light, outcome, sh, with};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_value_from_a_secret_arrives_to_the_byte_or_the_message_says_that_it_is_too_long() {
    let ns = TestNamespace::new("limits").await;
    for (name, bytes) in [("fits", 131_071 - "BIG=".len()), ("too-long", 131_072 - "BIG=".len())] {
        let secret = json!({"metadata": {"name": name}, "stringData": {"BIG": "x".repeat(bytes)}});
        ns.create::<Secret>(secret).await;
        let env = json!({"envFrom": [{"secretRef": {"name": name}}]});
        ns.sandbox(name, light(with(sh("test ${#BIG} = 131067"), env))).await;
    }
    ns.sandbox("own-255", light(sh("exit 255"))).await;
    assert_eq!(outcome(&ns.ended("fits").await), ("COMPLETED", "Completed", Some(0)));

    let status = ns.ended("too-long").await;
    assert_eq!(outcome(&status), ("FAILED", "Error", Some(255)));
    let message = status.message.unwrap_or_default();
    assert!(message.contains("longer than Linux accepts: 131071 bytes"), "{message}");

    let status = ns.ended("own-255").await;
    assert_eq!(outcome(&status), ("FAILED", "Error", Some(255)));
    assert_eq!(
        status.message.as_deref(),
        Some("the main command ended with exit code 255")
    );
    ns.end().await;
}
