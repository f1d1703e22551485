//! Files, volumes, and where sidecars mount them.

use serde_json::{Value, json};

use crate::{Case, many};

fn file(file: Value) -> Value {
    json!({"files": [file]})
}

fn volume(volume: Value) -> Value {
    json!({"volumes": [volume]})
}

fn at(path: &str) -> Value {
    volume(json!({"name": "data", "mountPath": path, "scratch": {}}))
}

fn sized(size: Value) -> Value {
    volume(json!({"name": "data", "mountPath": "/data", "scratch": {"size": size}}))
}

fn volumes(paths: &[&str], file: &str) -> Value {
    let volumes = paths.iter().enumerate();
    let volumes: Vec<_> = volumes
        .map(|(i, path)| json!({"name": format!("v{i}"), "mountPath": path, "scratch": {}}))
        .collect();
    json!({"volumes": volumes, "files": [{"path": file, "content": ""}]})
}

fn mounts(mounts: Value) -> Value {
    let mut spec = at("/data");
    spec["sidecars"] = json!([{"name": "proxy", "image": "busybox", "mounts": mounts}]);
    spec
}

fn mount(volume: &str, path: &str) -> Value {
    mounts(json!([{"name": volume, "mountPath": path}]))
}

/// Two volumes that say not where they are mounted, and mounts of the main container.
fn unmounted(mounts: Value) -> Value {
    json!({"volumes": [{"name": "a", "scratch": {}}, {"name": "b", "scratch": {}}], "mounts": mounts})
}

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    let (source, path) = ("files[]: give exactly one", "files[].path: must be");
    let (volume_source, mount_path) = ("volumes[]: give exactly one", "volumes[].mountPath: must be an absolute path");
    let (mounted, same) = ("mounts[].mountPath: must be", "volumes[].mountPath: must not be that of another");
    let secret = json!({"name": "s", "key": "k"});
    vec![
        ("file as text", file(json!({"path": "/a", "content": "x", "mode": 511})), Ok(())),
        ("empty file", file(json!({"path": "/a", "content": ""})), Ok(())),
        ("file in base64", file(json!({"path": "/a/b", "contentBase64": "eHg="})), Ok(())),
        ("file of a Secret", file(json!({"path": "/a/b", "secretKeyRef": secret})), Ok(())),
        ("file of a ConfigMap", file(json!({"path": "/a/b", "configMapKeyRef": secret})), Ok(())),
        ("file without content", file(json!({"path": "/a"})), Err(source)),
        ("file with two contents", file(json!({"path": "/a", "content": "x", "contentBase64": "eA=="})), Err(source)),
        ("file with text and Secret", file(json!({"path": "/a", "content": "x", "secretKeyRef": secret})), Err(source)),
        ("file with bad base64", file(json!({"path": "/a", "contentBase64": "?"})), Err("spec.files[0].contentBase64")),
        ("relative file", file(json!({"path": "a/..b/.c", "content": "x"})), Ok(())),
        ("relative file up", file(json!({"path": "../a", "content": "x"})), Err(path)),
        ("relative file through .", file(json!({"path": "./a", "content": "x"})), Err(path)),
        ("relative file with an empty part", file(json!({"path": "a//b", "content": "x"})), Err(path)),
        ("relative file that is a folder", file(json!({"path": "a/", "content": "x"})), Err(path)),
        ("file ..", file(json!({"path": "..", "content": "x"})), Err(path)),
        ("file .", file(json!({"path": ".", "content": "x"})), Err(path)),
        ("file without a path", file(json!({"path": "", "content": "x"})), Err("spec.files[0].path")),
        ("relative file with the image's entrypoint",
            json!({"entrypoint": "Image", "files": [{"path": "/a", "content": "x"}, {"path": "a", "content": "x"}]}),
            Err("spec.files[].path: must be absolute with spec.entrypoint: Image"),
        ),
        ("relative file with entrypoint Command", json!({"entrypoint": "Command", "files": [{"path": "a", "content": "x"}]}), Ok(())),
        ("file with the image's entrypoint", json!({"entrypoint": "Image", "files": [{"path": "/a", "content": "x"}]}), Ok(())),
        ("file /", file(json!({"path": "/", "content": "x"})), Err(path)),
        ("file that is a folder", file(json!({"path": "/a/", "content": "x"})), Err(path)),
        ("file through ..", file(json!({"path": "/a/../b", "content": "x"})), Err(path)),
        ("file that ends in ..", file(json!({"path": "/a/..", "content": "x"})), Err(path)),
        ("file with a colon", file(json!({"path": "/a:b", "content": "x"})), Err(path)),
        ("file through .", file(json!({"path": "/a/./b", "content": "x"})), Err(path)),
        ("file that ends in .", file(json!({"path": "/a/.", "content": "x"})), Err(path)),
        ("file with an empty part", file(json!({"path": "/a//b", "content": "x"})), Err(path)),
        ("file over the agent", file(json!({"path": "/.sandbox-operator", "content": "x"})), Err(path)),
        ("file in the agent's folder", file(json!({"path": "/.sandbox-operator/x", "content": "x"})), Err(path)),
        ("file over the files to place", file(json!({"path": "/.sandbox-operator-files", "content": "x"})), Err(path)),
        ("file beside the agent's folder", file(json!({"path": "/.sandbox-operator.x", "content": "x"})), Ok(())),
        ("file path of 1025", file(json!({"path": format!("/{}", "a".repeat(1024)), "content": "x"})), Err("spec.files[0].path")),
        ("file with dots", file(json!({"path": "/a/..b/.c", "content": "x"})), Ok(())),
        ("mode of 512", file(json!({"path": "/a", "content": "x", "mode": 512})), Err("spec.files[0].mode")),
        ("mode of -1", file(json!({"path": "/a", "content": "x", "mode": -1})), Err("spec.files[0].mode")),
        ("Secret without a key", file(json!({"path": "/a", "secretKeyRef": {"name": "s"}})), Err("spec.files[0].secretKeyRef.key")),
        ("two files at a path",
            json!({"files": [{"path": "/a", "content": "x"}, {"path": "/a", "content": "y"}]}),
            Err("spec.files[1]: Duplicate"),
        ),
        ("large file", file(json!({"path": "/a", "content": "x".repeat(262_144)})), Ok(())),
        ("too large a file", file(json!({"path": "/a", "content": "x".repeat(262_145)})), Err("spec.files[0].content")),
        ("scratch", at("/data"), Ok(())),
        ("claim", volume(json!({"name": "a", "mountPath": "/a", "persistentVolumeClaim": {"claimName": "c"}})), Ok(())),
        ("volumes that only mounts mount", unmounted(json!([{"name": "a", "mountPath": "/a"}])), Ok(())),
        ("volume that only a sidecar mounts",
            json!({"volumes": [{"name": "a", "scratch": {}}], "sidecars": [{"name": "b", "image": "c", "mounts": [{"name": "a", "mountPath": "/a"}]}]}),
            Ok(()),
        ),
        ("volume that nothing mounts", unmounted(json!([])), Ok(())),
        ("volumes with and without a mountPath",
            json!({"volumes": [{"name": "a", "scratch": {}}, {"name": "b", "mountPath": "/f", "scratch": {}}], "files": [{"path": "/f", "content": ""}]}),
            Err("spec.files[].path: must not be the mountPath"),
        ),
        ("main mount with all", unmounted(json!([{"name": "a", "mountPath": "/a", "subPath": "b/..c", "readOnly": true}])), Ok(())),
        ("main mount of no volume", unmounted(json!([{"name": "c", "mountPath": "/a"}])), Err("spec.mounts[].name: must be the name")),
        ("main mount without a path", unmounted(json!([{"name": "a"}])), Err("spec.mounts[0].mountPath: Required")),
        ("main mount at /", unmounted(json!([{"name": "a", "mountPath": "/"}])), Err(mounted)),
        ("main mount at a relative path", unmounted(json!([{"name": "a", "mountPath": "a"}])), Err(mounted)),
        ("main mount over the agent", unmounted(json!([{"name": "a", "mountPath": "/.sandbox-operator"}])), Err(mounted)),
        ("main mount over the files to place", unmounted(json!([{"name": "a", "mountPath": "/.sandbox-operator-files"}])), Err(mounted)),
        ("main mount beside the agent's folder", unmounted(json!([{"name": "a", "mountPath": "/.sandbox-operators"}])), Ok(())),
        ("main mount up", unmounted(json!([{"name": "a", "mountPath": "/a", "subPath": "b/.."}])), Err("mounts[].subPath: must be")),
        ("two main mounts at a path", unmounted(json!([{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/a"}])), Err("spec.mounts[1]: Duplicate")),
        ("32 main mounts", unmounted(many(32, |i| json!({"name": "a", "mountPath": format!("/{i}")}))), Ok(())),
        ("33 main mounts", unmounted(many(33, |i| json!({"name": "a", "mountPath": format!("/{i}")}))), Err("spec.mounts: Too many")),
        ("32 mounts of a sidecar", mounts(many(32, |i| json!({"name": "data", "mountPath": format!("/{i}")}))), Ok(())),
        ("33 mounts of a sidecar", mounts(many(33, |i| json!({"name": "data", "mountPath": format!("/{i}")}))), Err("spec.sidecars[0].mounts: Too many")),
        ("volume of nothing", volume(json!({"name": "a", "mountPath": "/a"})), Err(volume_source)),
        ("volume of two",
            volume(json!({"name": "a", "mountPath": "/a", "scratch": {}, "persistentVolumeClaim": {"claimName": "c"}})),
            Err(volume_source),
        ),
        ("volume at /", at("/"), Err("spec.volumes[0].mountPath")),
        ("volume at a relative path", at("data"), Err("spec.volumes[0].mountPath")),
        ("volume over the agent", at("/.sandbox-operator"), Err(mount_path)),
        ("volume over the files to place", at("/.sandbox-operator-files"), Err(mount_path)),
        ("volume inside the files to place", at("/.sandbox-operator-files/x"), Err(mount_path)),
        ("volume inside the agent's folder", at("/.sandbox-operator/x"), Err(mount_path)),
        ("volume with a colon", at("/a:b"), Err(mount_path)),
        ("volume of our name", volume(json!({"name": "sandbox-operator-agent", "mountPath": "/a", "scratch": {}})), Err("volumes[].name")),
        ("volume name in capitals", volume(json!({"name": "A", "mountPath": "/a", "scratch": {}})), Err("spec.volumes[0].name")),
        ("memory with size", volume(json!({"name": "a", "mountPath": "/a", "scratch": {"medium": "Memory", "size": "1Gi"}})), Ok(())),
        ("memory without size",
            volume(json!({"name": "a", "mountPath": "/a", "scratch": {"medium": "Memory"}})),
            Err("volumes[].scratch.size: is required"),
        ),
        ("unknown medium", volume(json!({"name": "a", "mountPath": "/a", "scratch": {"medium": "Tape"}})), Err("scratch.medium")),
        ("sub path", volume(json!({"name": "a", "mountPath": "/a", "subPath": "b/..c", "scratch": {}})), Ok(())),
        ("sub path up", volume(json!({"name": "a", "mountPath": "/a", "subPath": "b/..", "scratch": {}})), Err("volumes[].subPath")),
        ("absolute sub path", volume(json!({"name": "a", "mountPath": "/a", "subPath": "/b", "scratch": {}})), Err("volumes[].subPath")),
        ("two volumes of a name",
            json!({"volumes": [{"name": "a", "mountPath": "/a", "scratch": {}}, {"name": "a", "mountPath": "/b", "scratch": {}}]}),
            Err("spec.volumes[1]: Duplicate"),
        ),
        ("volume that ends in /", at("/a/"), Err(mount_path)),
        ("volume through ..", at("/a/../b"), Err(mount_path)),
        ("volume through .", at("/./b"), Err(mount_path)),
        ("volume with an empty part", at("//a"), Err(mount_path)),
        ("volume with dots", at("/.a/..b/...c/..."), Ok(())),
        ("volume beside the agent's folder", at("/.sandbox-operators"), Ok(())),
        ("scratch of a bad size", sized(json!("1 GB")), Err("volumes[].scratch.size: must be a quantity")),
        ("scratch of no size", sized(json!("0")), Err("volumes[].scratch.size: must be a quantity")),
        ("scratch of a negative size", sized(json!(-1)), Err("volumes[].scratch.size: must be a quantity")),
        ("scratch of a number of bytes", sized(json!(1_048_576)), Ok(())),
        ("two volumes at a path", volumes(&["/a", "/b", "/a"], "/f"), Err(same)),
        ("volume in a volume", volumes(&["/a", "/a/b"], "/a/c"), Ok(())),
        ("volume and file at a path", volumes(&["/a", "/b"], "/b"), Err("spec.files[].path: must not be the mountPath")),
        ("mount", mount("data", "/a"), Ok(())),
        ("mount over the files to place", mount("data", "/.sandbox-operator-files"), Err(mounted)),
        ("mount beside the agent's folder", mount("data", "/.sandbox-operators"), Ok(())),
        ("mount of no volume", mount("other", "/a"), Err("spec.sidecars[].mounts[].name: must be the name")),
        ("mount at /", mount("data", "/"), Err(mounted)),
        ("mount through ..", mount("data", "/a/.."), Err(mounted)),
        ("mount through .", mount("data", "/a/./b"), Err(mounted)),
        ("mount with an empty part", mount("data", "/a//b"), Err(mounted)),
        ("mount over the agent", mount("data", "/.sandbox-operator"), Err(mounted)),
        ("mount in the agent's folder", mount("data", "/.sandbox-operator/x"), Err(mounted)),
        ("two mounts at a path", mounts(json!([{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/a"}])), Err("mounts[1]: Duplicate")),
        ("two mounts of a volume", mounts(json!([{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/b"}])), Ok(())),
        ("sub path of a mount", mounts(json!([{"name": "data", "mountPath": "/a", "subPath": "b"}])), Ok(())),
        ("sub path of a mount, up", mounts(json!([{"name": "data", "mountPath": "/a", "subPath": "../b"}])), Err("mounts[].subPath: must be")),
    ]
}
