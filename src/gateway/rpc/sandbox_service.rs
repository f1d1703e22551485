//! SandboxService, and the same methods as SandboxDataPlaneService.

use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::gateway::dataplane::agent_handle::Agents;
use crate::gateway::dataplane::response_stream::ResponseStream;
use crate::gateway::dataplane::{exec, files, logs};
use crate::gateway::edge::access_log::record_sandbox;
use crate::gateway::edge::body_budget::BodyBudget;
use crate::gateway::edge::caller::{Caller, Permission};
use crate::gateway::edge::identity::Identity;
use crate::gateway::edge::log_search::LogSearchPermits;
use crate::gateway::error::{reason, status, unimplemented};
use crate::gateway::rpc::authorize::authorize;
use crate::gateway::sandboxes::create::{self, Creator};
use crate::gateway::sandboxes::lookup::SandboxLookup;
use crate::gateway::sandboxes::public_endpoints::PublicEndpoints;
use crate::gateway::sandboxes::view::SandboxView;
use crate::gateway::sandboxes::{delete, get, list};
use crate::proto::sandbox as pb;
use crate::proto::sandbox::sandbox_data_plane_service_server::SandboxDataPlaneService;
use crate::proto::sandbox::sandbox_service_server::SandboxService;

/// What the methods need.
pub(crate) struct Parts {
    /// Authorizes callers.
    pub(crate) identity: Arc<Identity>,
    /// Creates sandboxes.
    pub(crate) creator: Creator,
    /// Finds sandboxes.
    pub(crate) lookup: SandboxLookup,
    /// Converts sandboxes.
    pub(crate) view: SandboxView,
    /// Finds public endpoints.
    pub(crate) endpoints: PublicEndpoints,
    /// Calls agents.
    pub(crate) agents: Agents,
    /// Largest file of ReadFile and WriteFile.
    pub(crate) max_file_bytes: u64,
    /// Cancelled when this replica is about to stop.
    pub(crate) draining: CancellationToken,
}

/// The service.
#[derive(Clone)]
pub struct Sandboxes(Arc<Parts>);

impl Sandboxes {
    /// The service of these parts.
    pub(crate) fn new(parts: Parts) -> Sandboxes {
        Sandboxes(Arc::new(parts))
    }

    async fn authorize<T>(&self, request: &Request<T>, permission: Permission) -> Result<Caller, Status> {
        authorize(&self.0.identity, request, permission).await
    }
}

#[tonic::async_trait]
impl SandboxService for Sandboxes {
    async fn create_sandbox(
        &self,
        request: Request<pb::CreateSandboxRequest>,
    ) -> Result<Response<pb::Sandbox>, Status> {
        let caller = self.authorize(&request, Permission::Create).await?;
        let created = create::create(&self.0.creator, &caller, request.into_inner()).await?;
        record_sandbox(&created.sandbox_id);
        Ok(Response::new(created))
    }

    async fn create_sandbox_from_template(
        &self,
        request: Request<pb::CreateSandboxFromTemplateRequest>,
    ) -> Result<Response<pb::Sandbox>, Status> {
        self.authorize(&request, Permission::GetTemplates).await?;
        let caller = self.authorize(&request, Permission::Create).await?;
        let created = create::from_template(&self.0.creator, &caller, request.into_inner()).await?;
        record_sandbox(&created.sandbox_id);
        Ok(Response::new(created))
    }

    async fn create_sandbox_from_file(
        &self,
        _: Request<pb::CreateSandboxFromFileRequest>,
    ) -> Result<Response<pb::Sandbox>, Status> {
        Err(unimplemented("CreateSandboxFromFile"))
    }

    async fn get_sandbox(&self, request: Request<pb::GetSandboxRequest>) -> Result<Response<pb::Sandbox>, Status> {
        record_sandbox(&request.get_ref().sandbox_id);
        let caller = self.authorize(&request, Permission::Get).await?;
        let Parts {
            lookup,
            view,
            endpoints,
            ..
        } = &*self.0;
        let found = get::get(lookup, view, endpoints, &caller.namespace, request.into_inner()).await?;
        Ok(Response::new(found))
    }

    async fn get_sandbox_build_logs(
        &self,
        _: Request<pb::GetSandboxBuildLogsRequest>,
    ) -> Result<Response<pb::GetSandboxBuildLogsResponse>, Status> {
        Err(unimplemented("GetSandboxBuildLogs"))
    }

    async fn list_sandboxes(
        &self,
        request: Request<pb::ListSandboxesRequest>,
    ) -> Result<Response<pb::ListSandboxesResponse>, Status> {
        let caller = self.authorize(&request, Permission::List).await?;
        let budget = BodyBudget::of(&request);
        let Parts { view, endpoints, .. } = &*self.0;
        let page = list::list(view, endpoints, &caller.namespace, request.into_inner(), budget).await?;
        Ok(Response::new(page))
    }

    async fn delete_sandbox(
        &self,
        request: Request<pb::DeleteSandboxRequest>,
    ) -> Result<Response<pb::DeleteSandboxResponse>, Status> {
        record_sandbox(&request.get_ref().sandbox_id);
        let caller = self.authorize(&request, Permission::Delete).await?;
        let Parts { lookup, view, .. } = &*self.0;
        let deleted = delete::delete(lookup, view, &caller.namespace, request.into_inner()).await?;
        Ok(Response::new(deleted))
    }

    async fn purge_sandboxes(
        &self,
        _: Request<pb::PurgeSandboxesRequest>,
    ) -> Result<Response<pb::PurgeSandboxesResponse>, Status> {
        Err(unimplemented("PurgeSandboxes"))
    }

    async fn connect_sandbox(
        &self,
        _: Request<pb::ConnectSandboxRequest>,
    ) -> Result<Response<pb::SandboxConnection>, Status> {
        // The SDK then keeps using the gateway.
        Err(unimplemented("ConnectSandbox"))
    }

    async fn exec(&self, request: Request<pb::ExecRequest>) -> Result<Response<pb::ExecResponse>, Status> {
        record_sandbox(&request.get_ref().sandbox_id);
        let caller = self.authorize(&request, Permission::Exec).await?;
        let Parts { agents, draining, .. } = &*self.0;
        let done = exec::exec(agents, draining, &caller.namespace, request).await?;
        Ok(Response::new(done))
    }

    type StreamExecStream = ResponseStream<pb::ExecStreamResponse>;

    async fn stream_exec(
        &self,
        request: Request<Streaming<pb::ExecStreamRequest>>,
    ) -> Result<Response<Self::StreamExecStream>, Status> {
        let caller = self.authorize(&request, Permission::Exec).await?;
        let Parts { agents, draining, .. } = &*self.0;
        let responses = Box::pin(exec::stream_exec(agents, draining, &caller.namespace, request)).await?;
        Ok(Response::new(responses))
    }

    type StreamLogsStream = ResponseStream<pb::LogEntry>;

    async fn stream_logs(
        &self,
        request: Request<pb::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        record_sandbox(&request.get_ref().sandbox_id);
        let caller = self.authorize(&request, Permission::Logs).await?;
        let searches = LogSearchPermits::of(&request);
        let Parts { lookup, draining, .. } = &*self.0;
        let entries = logs::stream_logs(lookup, draining, &caller.namespace, request.into_inner(), searches).await?;
        Ok(Response::new(entries))
    }

    async fn write_file(
        &self,
        request: Request<pb::WriteFileRequest>,
    ) -> Result<Response<pb::WriteFileResponse>, Status> {
        record_sandbox(&request.get_ref().sandbox_id);
        let caller = self.authorize(&request, Permission::WriteFiles).await?;
        let Parts {
            agents, max_file_bytes, ..
        } = &*self.0;
        let written = files::write(agents, *max_file_bytes, &caller.namespace, request.into_inner()).await?;
        Ok(Response::new(written))
    }

    async fn read_file(&self, request: Request<pb::ReadFileRequest>) -> Result<Response<pb::ReadFileResponse>, Status> {
        record_sandbox(&request.get_ref().sandbox_id);
        let caller = self.authorize(&request, Permission::ReadFiles).await?;
        let budget = BodyBudget::of(&request);
        let Parts {
            agents, max_file_bytes, ..
        } = &*self.0;
        let content = files::read(agents, *max_file_bytes, &caller.namespace, request.into_inner(), budget).await?;
        Ok(Response::new(content))
    }

    async fn create_file_system_snapshot(
        &self,
        _: Request<pb::CreateFileSystemSnapshotRequest>,
    ) -> Result<Response<pb::FileSystemSnapshot>, Status> {
        Err(no_snapshots())
    }

    async fn get_file_system_snapshot(
        &self,
        _: Request<pb::GetFileSystemSnapshotRequest>,
    ) -> Result<Response<pb::FileSystemSnapshot>, Status> {
        Err(no_snapshots())
    }

    async fn list_file_system_snapshots(
        &self,
        _: Request<pb::ListFileSystemSnapshotsRequest>,
    ) -> Result<Response<pb::ListFileSystemSnapshotsResponse>, Status> {
        Err(no_snapshots())
    }

    async fn delete_file_system_snapshot(
        &self,
        _: Request<pb::DeleteFileSystemSnapshotRequest>,
    ) -> Result<Response<pb::FileSystemSnapshot>, Status> {
        Err(no_snapshots())
    }
}

/// The same methods, under the service name that direct connections use.
#[tonic::async_trait]
impl SandboxDataPlaneService for Sandboxes {
    async fn exec(&self, request: Request<pb::ExecRequest>) -> Result<Response<pb::ExecResponse>, Status> {
        SandboxService::exec(self, request).await
    }

    type StreamExecStream = ResponseStream<pb::ExecStreamResponse>;

    async fn stream_exec(
        &self,
        request: Request<Streaming<pb::ExecStreamRequest>>,
    ) -> Result<Response<Self::StreamExecStream>, Status> {
        SandboxService::stream_exec(self, request).await
    }

    type StreamLogsStream = ResponseStream<pb::LogEntry>;

    async fn stream_logs(
        &self,
        request: Request<pb::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        SandboxService::stream_logs(self, request).await
    }

    async fn write_file(
        &self,
        request: Request<pb::WriteFileRequest>,
    ) -> Result<Response<pb::WriteFileResponse>, Status> {
        SandboxService::write_file(self, request).await
    }

    async fn read_file(&self, request: Request<pb::ReadFileRequest>) -> Result<Response<pb::ReadFileResponse>, Status> {
        SandboxService::read_file(self, request).await
    }
}

fn no_snapshots() -> Status {
    let text = "file system snapshots are not supported";
    status(Code::Unimplemented, reason::SNAPSHOT_NOT_SUPPORTED, text)
}
