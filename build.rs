//! Compiles `proto/` with a Rust compiler for it: no protoc is needed.

use std::path::PathBuf;

const FILES: [&str; 8] = [
    "agent/v1/agent.proto",
    "coreweave/sandbox/v1/discovery.proto",
    "coreweave/sandbox/v1/runtime_class.proto",
    "coreweave/sandbox/v1/sandbox.proto",
    "coreweave/sandbox/v1/sandbox_data_plane.proto",
    "coreweave/sandbox/v1/sandbox_template.proto",
    "coreweave/sandbox/v1/settings.proto",
    "coreweave/sandbox/v1/volume.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    // For gRPC reflection, and for the test that compares them with the SDK's.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    // File contents and output come as `Bytes`: passing them on does not copy them.
    // Ordered maps where a request is hashed: equal requests must have equal bytes.
    let hashed = [
        "Container",
        "PartialContainer",
        "SandboxSpec",
        "PartialSandboxSpec",
        "SelectorBlock",
    ];
    hashed
        .iter()
        .fold(tonic_prost_build::configure().bytes("."), |builder, message| {
            builder.btree_map(format!(".coreweave.sandbox.v1.{message}"))
        })
        .compile_fds(descriptors)?;
    Ok(())
}
