use super::*;
use crate::api::{SandboxSession, SandboxSessionSpec};
use crate::operator::error::Error;
use kube::runtime::controller::Action as Requeue;
use kube::runtime::reflector::store::Writer;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A reconcile function whose outcome depends on the object's name.
#[derive(Default)]
struct Calls {
    by_name: Mutex<HashMap<String, u32>>,
    /// Permits for reconciles of `slow`.
    slow: Option<Semaphore>,
    states: Option<States<u32>>,
}

impl Calls {
    fn of(&self, name: &str) -> u32 {
        self.by_name.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

fn conflict() -> Error {
    let status = kube::core::Status::failure("changed", "Conflict").with_code(409);
    let target = crate::kube::Target {
        namespace: "n",
        name: "conflict",
        uid: "",
    };
    Error::api("patch", "SandboxSession", target, kube::Error::Api(Box::new(status)))
}

async fn reconcile(session: Arc<SandboxSession>, calls: Arc<Calls>) -> Result<Requeue, Error> {
    let name = session.metadata.name.clone().unwrap_or_default();
    let call = {
        let mut by_name = calls.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let call = by_name.entry(name.clone()).or_default();
        *call += 1;
        *call
    };
    if let Some(states) = &calls.states {
        states.update(session.metadata.uid.as_deref().unwrap_or_default(), |n| *n += 1);
    }
    match name.as_str() {
        "panics" => panic!("a bug"),
        "conflict" if call < 3 => Err(conflict()),
        "slow" => {
            if let Some(slow) = &calls.slow {
                drop(slow.acquire().await);
            }
            Ok(Requeue::await_change())
        }
        _ => Ok(Requeue::await_change()),
    }
}

fn session(name: &str) -> SandboxSession {
    let mut session = SandboxSession::new(name, SandboxSessionSpec::default());
    session.metadata.namespace = Some("n".into());
    session.metadata.uid = Some(format!("uid-of-{name}"));
    session
}

type Running = controller::Running<SandboxSession, Calls, u32, BoxFuture<'static, Result<Requeue, Error>>>;

struct Scene {
    writer: Writer<SandboxSession>,
    informer: Informer<SandboxSession>,
    queue: Queue<SandboxSession>,
    calls: Arc<Calls>,
    running: Arc<Running>,
    metrics: Metrics,
}

impl Scene {
    fn new(names: &[&str], calls: Calls) -> Scene {
        let (informer, mut writer) = Informer::<SandboxSession>::new();
        writer.apply_watcher_event(&Event::Init);
        for name in names {
            writer.apply_watcher_event(&Event::InitApply(session(name)));
        }
        writer.apply_watcher_event(&Event::InitDone);
        let metrics = Metrics::default();
        let queue = Queue::new(metrics.queue_depth("SandboxSession"));
        let states = States::of(&informer);
        let calls = Arc::new(Calls {
            states: Some(states.clone()),
            ..calls
        });
        let controller = Controller {
            informer: informer.clone(),
            queue: queue.clone(),
            reconcile: |session, calls| reconcile(session, calls).boxed(),
            context: calls.clone(),
            states,
            concurrency: 4,
        };
        let running = controller::Running::new(controller, metrics.clone());
        Scene {
            writer,
            informer,
            queue,
            calls,
            running,
            metrics,
        }
    }

    fn start(&self) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let stop = CancellationToken::new();
        (stop.clone(), tokio::spawn(self.running.clone().run(stop)))
    }

    async fn until(&self, what: &str, met: impl Fn(&Calls) -> bool) {
        for _ in 0..10_000 {
            if met(&self.calls) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "{what}: {:?}, {}",
            self.calls.by_name.lock().unwrap(),
            self.metrics.text()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_concerns_one_object_which_is_tried_again() {
    let scene = Scene::new(&["panics", "fine"], Calls::default());
    let _running = scene.start();
    scene.until("a retry", |calls| calls.of("panics") >= 3).await;
    assert_eq!(scene.calls.of("fine"), 1);
    scene.queue.push(ObjectRef::new("fine").within("n"));
    scene
        .until("the controller to go on", |calls| calls.of("fine") == 2)
        .await;
    let text = scene.metrics.text();
    assert!(
        text.contains(r#"reconcile_errors_total{kind="SandboxSession",reason="Panic"}"#),
        "{text}"
    );
    assert!(text.contains("in_flight 0"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_retried_soon_and_counted() {
    let scene = Scene::new(&["conflict"], Calls::default());
    let start = tokio::time::Instant::now();
    let _running = scene.start();
    scene
        .until("the third attempt", |calls| calls.of("conflict") == 3)
        .await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    let text = scene.metrics.text();
    assert!(
        text.contains(r#"reconcile_errors_total{kind="SandboxSession",reason="Conflict"} 2"#),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn each_term_begins_with_everything_and_ends_what_is_under_way() {
    let calls = Calls {
        slow: Some(Semaphore::new(0)),
        ..Calls::default()
    };
    let scene = Scene::new(&["slow", "fine"], calls);
    scene.queue.push(ObjectRef::new("fine").within("n"));
    assert_eq!(
        scene.metrics.queue_depth("SandboxSession").get(),
        0,
        "a standby queues nothing"
    );
    let (stop, running) = scene.start();
    scene
        .until("the first reconciles", |calls| calls.of("slow") + calls.of("fine") == 2)
        .await;
    stop.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!running.is_finished(), "a reconcile is under way");
    if let Some(slow) = &scene.calls.slow {
        slow.add_permits(1);
    }
    running.await.unwrap();
    let (_stop, _running) = scene.start();
    scene
        .until("the second term", |calls| {
            calls.of("slow") == 2 && calls.of("fine") == 2
        })
        .await;
    let states = scene.calls.states.as_ref().unwrap();
    assert_eq!(
        states.get("uid-of-fine"),
        1,
        "what was known in the first term is out of date"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_an_object_is_forgotten_with_it() {
    let mut scene = Scene::new(&["fine", "other"], Calls::default());
    let _running = scene.start();
    scene
        .until("the first reconciles", |calls| {
            calls.of("fine") == 1 && calls.of("other") == 1
        })
        .await;
    let states = scene.calls.states.clone().unwrap();
    let notify = |event: &Event<SandboxSession>| scene.informer.notify(event);
    notify(&Event::Delete(session("fine")));
    assert_eq!((states.get("uid-of-fine"), states.get("uid-of-other")), (0, 1));
    scene.writer.apply_watcher_event(&Event::Init);
    scene.writer.apply_watcher_event(&Event::InitDone);
    notify(&Event::InitDone);
    assert_eq!(states.get("uid-of-other"), 0, "its deletion was missed");
}
