//! What all measurements work with: sandboxes that run, and callers with a connection each.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use sandbox_operator::api::Sandbox;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::callers::{Caller, Callers};
use crate::calls;
use crate::ground::{Failure, Ground, PATIENCE};
use sandbox_operator::proto::sandbox as pb;

/// Sandboxes that run all the time.
const SANDBOXES: usize = 4;
/// Callers with a connection.
const CALLERS: usize = 64;

/// A sandbox that runs.
pub struct Place {
    /// What callers know it by.
    pub sandbox_id: String,
    /// Its pod.
    pub pod: String,
}

/// What all measurements work with.
#[derive(Clone)]
pub struct Scene(Arc<Inner>);

struct Inner {
    namespace: String,
    pods: Api<Pod>,
    callers: Vec<Caller>,
    places: Vec<Place>,
}

impl Scene {
    /// Makes the sandboxes, and takes the pod of one as the shape of the bare ones.
    pub async fn new(ground: &mut Ground, all: &Callers) -> Result<Scene, Failure> {
        let mut callers = vec![];
        for number in 0..CALLERS {
            callers.push(all.connect(number).await?);
        }
        let namespace = ground.sandboxes.namespace.clone();
        let sandboxes: Api<Sandbox> = Api::namespaced(ground.client.clone(), &namespace);
        let mut places = vec![];
        for caller in &mut callers[..SANDBOXES] {
            let sandbox_id = caller.create_sandbox(calls::create()).await?.into_inner().sandbox_id;
            running(caller, &sandbox_id).await?;
            let pod = sandboxes.get(&sandbox_id).await?.status.and_then(|s| s.pod_name);
            let pod = pod.ok_or("a running sandbox without a pod")?;
            places.push(Place { sandbox_id, pod });
        }
        ground.copy_shape(&places[0].sandbox_id).await?;
        let pods = Api::namespaced(ground.client.clone(), &namespace);
        Ok(Scene(Arc::new(Inner {
            namespace,
            pods,
            callers,
            places,
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

    /// The sandbox that this caller works in.
    pub fn place(&self, number: usize) -> &Place {
        &self.0.places[number % SANDBOXES]
    }

    /// All sandboxes that run all the time.
    pub fn places(&self) -> &[Place] {
        &self.0.places
    }

    /// How many callers there are.
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
        if began.elapsed() > PATIENCE {
            return Err(format!("sandbox {sandbox_id} is {:?}: {}", status.state(), status.state_reason).into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
