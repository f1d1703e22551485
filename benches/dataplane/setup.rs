//! What all measurements use: running sandboxes, and callers with a connection each.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use sandbox_operator::api::Sandbox;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::callers::{Caller, Callers};
use crate::calls;
use crate::fixture::{Failure, Fixture, TIMEOUT};
use sandbox_operator::proto::sandbox as pb;

/// Sandboxes that run during the whole benchmark.
const SANDBOXES: usize = 4;
/// Callers with a connection.
const CALLERS: usize = 64;

/// A running sandbox.
pub struct RunningSandbox {
    /// Its ID for callers.
    pub sandbox_id: String,
    /// Its pod.
    pub pod: String,
}

/// Running sandboxes and callers.
#[derive(Clone)]
pub struct Setup(Arc<Inner>);

struct Inner {
    namespace: String,
    pods: Api<Pod>,
    callers: Vec<Caller>,
    sandboxes: Vec<RunningSandbox>,
}

impl Setup {
    /// Creates the sandboxes, and uses the pod of one as the template of bare pods.
    pub async fn new(fixture: &mut Fixture, all: &Callers) -> Result<Setup, Failure> {
        let mut callers = vec![];
        for number in 0..CALLERS {
            callers.push(all.connect(number).await?);
        }
        let namespace = fixture.sandboxes.namespace.clone();
        let api: Api<Sandbox> = Api::namespaced(fixture.client.clone(), &namespace);
        let mut sandboxes = vec![];
        for caller in &mut callers[..SANDBOXES] {
            let sandbox_id = caller.create_sandbox(calls::create()).await?.into_inner().sandbox_id;
            running(caller, &sandbox_id).await?;
            let pod = api.get(&sandbox_id).await?.status.and_then(|s| s.pod_name);
            let pod = pod.ok_or("a running sandbox without a pod")?;
            sandboxes.push(RunningSandbox { sandbox_id, pod });
        }
        fixture.copy_shape(&sandboxes[0].sandbox_id).await?;
        let pods = Api::namespaced(fixture.client.clone(), &namespace);
        Ok(Setup(Arc::new(Inner {
            namespace,
            pods,
            callers,
            sandboxes,
        })))
    }

    /// Namespace of the sandboxes.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Their pods.
    pub fn pods(&self) -> &Api<Pod> {
        &self.0.pods
    }

    /// One of the callers.
    pub fn caller(&self, number: usize) -> Caller {
        self.0.callers[number % CALLERS].clone()
    }

    /// The sandbox that this caller uses.
    pub fn sandbox(&self, number: usize) -> &RunningSandbox {
        &self.0.sandboxes[number % SANDBOXES]
    }

    /// All running sandboxes.
    pub fn sandboxes(&self) -> &[RunningSandbox] {
        &self.0.sandboxes
    }

    /// Number of callers.
    pub fn callers(&self) -> usize {
        CALLERS
    }
}

async fn running(caller: &mut Caller, sandbox_id: &str) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let status = calls::get(caller, sandbox_id).await?.status.unwrap_or_default();
        if status.state() == pb::State::Running {
            return Ok(());
        }
        if began.elapsed() > TIMEOUT {
            return Err(format!("sandbox {sandbox_id} is {:?}: {}", status.state(), status.state_reason).into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
