//! Every manifest of `deploy/examples/` does what its comment says.

use crate::support::TestNamespace;
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};

#[tokio::test]
#[ignore = "needs a cluster"]
async fn every_example_runs() {
    let ns = TestNamespace::new("examples").await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let mut sandboxes = vec![];
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for document in text.split("\n---\n") {
            let object: DynamicObject = serde_saphyr::from_str(document).unwrap();
            let types = object.types.clone().unwrap();
            let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
            let api: Api<DynamicObject> = Api::namespaced_with(ns.client.clone(), &ns.namespace, &resource);
            api.create(&PostParams::default(), &object).await.unwrap();
            if types.kind == "Sandbox" {
                sandboxes.push(object);
            }
        }
    }
    assert!(sandboxes.len() >= 9);
    for object in sandboxes {
        let name = object.name_any();
        if ["workbench", "web"].contains(&name.as_str()) {
            let status = ns.running(&name).await;
            if name == "web" {
                let url = format!("http://web.{}.svc:8080", ns.namespace);
                assert_eq!((status.service_name.as_deref(), status.urls), (Some("web"), vec![url]));
            }
            continue;
        }
        let status = ns.ended(&name).await;
        assert_eq!(
            status.state.as_str(),
            "COMPLETED",
            "{name}: {:?} {:?}",
            status.reason,
            status.message
        );
    }
    ns.end().await;
}
