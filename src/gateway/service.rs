//! The gRPC services: each call is identified, authorized, and handed to the room that serves it. No logic here.

use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::audit::about;
use super::error::{reason, unimplemented};
use super::identity::{Caller, Right};
use super::limits::Room;
use super::state::Gateway;
use super::{create, data, manage};
use crate::proto::sandbox as pb;
use crate::proto::sandbox::sandbox_data_plane_service_server::SandboxDataPlaneService;
use crate::proto::sandbox::sandbox_service_server::SandboxService;

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves the sandbox services.
#[derive(Clone)]
pub struct Sandboxes(pub Arc<Gateway>);

/// The caller, if it may do this.
///
/// # Errors
/// PERMISSION_DENIED; UNAVAILABLE when the API server does not answer.
pub async fn admit<T>(gateway: &Gateway, request: &Request<T>, right: Right) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    // The first layer lets nothing through without one; this is the second lock on the same door.
    let caller = caller.ok_or_else(|| super::error::status(tonic::Code::Unauthenticated, reason::UNAUTHENTICATED, "no credentials"))?;
    gateway.identity.authorize(&caller, right).await?;
    Ok(caller)
}

#[tonic::async_trait]
impl SandboxService for Sandboxes {
    async fn create_sandbox(&self, request: Request<pb::CreateSandboxRequest>) -> Result<Response<pb::Sandbox>, Status> {
        let caller = admit(&self.0, &request, Right::Create).await?;
        let made = create::create(&self.0, &caller, request.into_inner()).await?;
        about(&made.sandbox_id);
        Ok(Response::new(made))
    }

    async fn create_sandbox_from_template(&self, request: Request<pb::CreateSandboxFromTemplateRequest>) -> Result<Response<pb::Sandbox>, Status> {
        let caller = admit(&self.0, &request, Right::Create).await?;
        let made = create::from_template(&self.0, &caller, request.into_inner()).await?;
        about(&made.sandbox_id);
        Ok(Response::new(made))
    }

    async fn create_sandbox_from_file(&self, _: Request<pb::CreateSandboxFromFileRequest>) -> Result<Response<pb::Sandbox>, Status> {
        Err(unimplemented("CreateSandboxFromFile"))
    }

    async fn get_sandbox(&self, request: Request<pb::GetSandboxRequest>) -> Result<Response<pb::Sandbox>, Status> {
        about(&request.get_ref().sandbox_id);
        let caller = admit(&self.0, &request, Right::Get).await?;
        manage::get(&self.0, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn get_sandbox_build_logs(&self, _: Request<pb::GetSandboxBuildLogsRequest>) -> Result<Response<pb::GetSandboxBuildLogsResponse>, Status> {
        Err(unimplemented("GetSandboxBuildLogs"))
    }

    async fn list_sandboxes(&self, request: Request<pb::ListSandboxesRequest>) -> Result<Response<pb::ListSandboxesResponse>, Status> {
        let caller = admit(&self.0, &request, Right::List).await?;
        let room = Room::of(&request);
        manage::list(&self.0, &caller, request.into_inner(), room).await.map(Response::new)
    }

    async fn delete_sandbox(&self, request: Request<pb::DeleteSandboxRequest>) -> Result<Response<pb::DeleteSandboxResponse>, Status> {
        about(&request.get_ref().sandbox_id);
        let caller = admit(&self.0, &request, Right::Delete).await?;
        manage::delete(&self.0, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn purge_sandboxes(&self, _: Request<pb::PurgeSandboxesRequest>) -> Result<Response<pb::PurgeSandboxesResponse>, Status> {
        Err(unimplemented("PurgeSandboxes"))
    }

    async fn connect_sandbox(&self, _: Request<pb::ConnectSandboxRequest>) -> Result<Response<pb::SandboxConnection>, Status> {
        // The SDK then stays on the gateway.
        Err(unimplemented("ConnectSandbox"))
    }

    async fn exec(&self, request: Request<pb::ExecRequest>) -> Result<Response<pb::ExecResponse>, Status> {
        about(&request.get_ref().sandbox_id);
        let caller = admit(&self.0, &request, Right::Exec).await?;
        data::exec::exec(&self.0, &caller, request).await.map(Response::new)
    }

    type StreamExecStream = Answers<pb::ExecStreamResponse>;

    async fn stream_exec(&self, request: Request<Streaming<pb::ExecStreamRequest>>) -> Result<Response<Self::StreamExecStream>, Status> {
        let caller = admit(&self.0, &request, Right::Exec).await?;
        Box::pin(data::exec::stream_exec(&self.0, &caller, request)).await.map(Response::new)
    }

    type StreamLogsStream = Answers<pb::LogEntry>;

    async fn stream_logs(&self, request: Request<pb::StreamLogsRequest>) -> Result<Response<Self::StreamLogsStream>, Status> {
        about(&request.get_ref().sandbox_id);
        let caller = admit(&self.0, &request, Right::Logs).await?;
        let room = Room::of(&request);
        data::logs::stream_logs(&self.0, &caller, request.into_inner(), room)
            .await
            .map(Response::new)
    }

    async fn write_file(&self, request: Request<pb::WriteFileRequest>) -> Result<Response<pb::WriteFileResponse>, Status> {
        about(&request.get_ref().sandbox_id);
        let caller = admit(&self.0, &request, Right::WriteFiles).await?;
        data::files::write(&self.0, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn read_file(&self, request: Request<pb::ReadFileRequest>) -> Result<Response<pb::ReadFileResponse>, Status> {
        about(&request.get_ref().sandbox_id);
        let caller = admit(&self.0, &request, Right::ReadFiles).await?;
        let room = Room::of(&request);
        data::files::read(&self.0, &caller, request.into_inner(), room).await.map(Response::new)
    }

    async fn create_file_system_snapshot(&self, _: Request<pb::CreateFileSystemSnapshotRequest>) -> Result<Response<pb::FileSystemSnapshot>, Status> {
        Err(snapshots())
    }

    async fn get_file_system_snapshot(&self, _: Request<pb::GetFileSystemSnapshotRequest>) -> Result<Response<pb::FileSystemSnapshot>, Status> {
        Err(snapshots())
    }

    async fn list_file_system_snapshots(
        &self,
        _: Request<pb::ListFileSystemSnapshotsRequest>,
    ) -> Result<Response<pb::ListFileSystemSnapshotsResponse>, Status> {
        Err(snapshots())
    }

    async fn delete_file_system_snapshot(&self, _: Request<pb::DeleteFileSystemSnapshotRequest>) -> Result<Response<pb::FileSystemSnapshot>, Status> {
        Err(snapshots())
    }
}

/// The same calls under the name that direct connections use.
#[tonic::async_trait]
impl SandboxDataPlaneService for Sandboxes {
    async fn exec(&self, request: Request<pb::ExecRequest>) -> Result<Response<pb::ExecResponse>, Status> {
        SandboxService::exec(self, request).await
    }

    type StreamExecStream = Answers<pb::ExecStreamResponse>;

    async fn stream_exec(&self, request: Request<Streaming<pb::ExecStreamRequest>>) -> Result<Response<Self::StreamExecStream>, Status> {
        SandboxService::stream_exec(self, request).await
    }

    type StreamLogsStream = Answers<pb::LogEntry>;

    async fn stream_logs(&self, request: Request<pb::StreamLogsRequest>) -> Result<Response<Self::StreamLogsStream>, Status> {
        SandboxService::stream_logs(self, request).await
    }

    async fn write_file(&self, request: Request<pb::WriteFileRequest>) -> Result<Response<pb::WriteFileResponse>, Status> {
        SandboxService::write_file(self, request).await
    }

    async fn read_file(&self, request: Request<pb::ReadFileRequest>) -> Result<Response<pb::ReadFileResponse>, Status> {
        SandboxService::read_file(self, request).await
    }
}

fn snapshots() -> Status {
    super::error::status(
        tonic::Code::Unimplemented,
        reason::SNAPSHOT_NOT_SUPPORTED,
        "file system snapshots are not supported",
    )
}
