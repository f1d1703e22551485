//! Generated from `proto/`.

// The generated code has the comments of the proto files, or none.
#![allow(missing_docs)]
#![allow(clippy::all)]

/// What the agent serves.
pub mod agent {
    tonic::include_proto!("sandbox_operator.agent.v1");
}

/// What the gateway serves.
pub mod sandbox {
    tonic::include_proto!("coreweave.sandbox.v1");
}

/// All descriptors, as a serialized `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
