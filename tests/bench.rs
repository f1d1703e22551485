//! Tests of the pure parts of `benches`, because a benchmark has no test harness.

#[path = "../benches/dataplane/content.rs"]
mod content;
#[path = "../benches/common/metrics.rs"]
mod metrics;
#[path = "../benches/scale/requests.rs"]
mod requests;
#[path = "../benches/dataplane/sdk_polls.rs"]
mod sdk_polls;
#[path = "../benches/common/stats.rs"]
mod stats;

use content::{Check, content};
use metrics::value;
use requests::{Writes, between, writes};
use stats::{Samples, Timing};
use std::time::Duration;

fn samples(millis: impl IntoIterator<Item = u64>, span: u64) -> Samples {
    Samples {
        latencies: millis.into_iter().map(Duration::from_millis).collect(),
        span: Duration::from_millis(span),
    }
}

#[test]
fn percentiles_do_not_depend_on_the_order() {
    let timing = samples((1..=100).rev(), 2_000).timing();
    assert_eq!(
        (timing.p50, timing.p90, timing.p95, timing.p99),
        (0.050, 0.090, 0.095, 0.099)
    );
    assert_eq!((timing.count, timing.per_second), (100, 50.0));
}

#[test]
fn few_samples_have_percentiles() {
    let timing = samples([7], 7).timing();
    assert_eq!((timing.p50, timing.p99), (0.007, 0.007));
    let timing = samples([1, 2, 3], 3).timing();
    assert_eq!((timing.p50, timing.p90), (0.002, 0.003));
}

#[test]
fn statistics_of_no_samples_are_zero() {
    assert_eq!(samples([], 0).timing(), Timing::default());
}

#[test]
fn rounds_add_up() {
    let mut both = samples([1, 3], 1_000);
    both.add(samples([2, 4], 3_000));
    assert_eq!(both.timing().per_second, 1.0);
    assert_eq!(both.timing().p50, 0.002);
}

const METRICS: &str = r#"# HELP apiserver_request_total Counter
apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="POST",version="v1"} 7
apiserver_request_total{code="403",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="POST",version="v1"} 1
apiserver_request_total{code="201",group="",resource="pods",scope="resource",subresource="binding",verb="POST",version="v1"} 5
apiserver_request_total{code="200",group="",resource="pods",scope="resource",subresource="status",verb="PATCH",version="v1"} 5
apiserver_request_total{code="201",resource="sandboxes",subresource="",verb="POST"} 9
apiserver_request_total{code="200",resource="sandboxes",subresource="status",verb="PATCH"} 1.2e+01
apiserver_request_total{code="200",resource="sandboxes",subresource="",verb="LIST"} 99
apiserver_request_total{code="200",resource="sandboxes",subresource="",verb="DELETE"} 99
apiserver_request_total_other{resource="secrets",subresource="",verb="POST"} 99
process_cpu_seconds_total 1.5
"#;

#[test]
fn only_the_operators_writes_count_with_every_status_code() {
    let wanted = [
        ("pods POST", 8.0),
        ("sandboxes POST", 9.0),
        ("sandboxes/status PATCH", 12.0),
    ];
    assert_eq!(writes(METRICS), Writes::from(wanted.map(|(k, v)| (k.into(), v))));
}

#[test]
fn own_creates_and_unchanged_counters_are_left_out() {
    let before = Writes::from([("pods POST".into(), 3.0), ("services POST".into(), 2.0)]);
    let after = Writes::from([
        ("pods POST".into(), 8.0),
        ("services POST".into(), 2.0),
        ("sandboxes POST".into(), 5.0),
    ]);
    assert_eq!(between(&before, &after, 5), Writes::from([("pods POST".into(), 5.0)]));
    assert_eq!(between(&before, &after, 4).get("sandboxes POST"), Some(&1.0));
}

#[test]
fn a_metric_without_labels_is_found_by_its_full_name() {
    assert_eq!(value(METRICS, "process_cpu_seconds_total"), Some(1.5));
    assert_eq!(value(METRICS, "process_cpu_seconds"), None);
}

#[test]
fn every_lost_or_wrong_byte_is_counted() {
    let sent = content(1000);
    let lost = |times, received: &[&[u8]]| {
        let mut check = Check::new(&sent, times);
        received.iter().for_each(|data| check.take(data));
        check.lost()
    };
    assert_eq!(lost(2, &[&sent[..300], &sent[300..], &sent]), 0, "in any chunks");
    let twice = [&sent[..], &sent[..]].concat();
    assert_eq!(lost(2, &[&twice]), 0);
    assert_eq!(lost(2, &[&twice[..1999]]), 1, "the last byte is missing");
    assert_eq!(lost(1, &[&twice[..1001]]), 1, "one extra byte");
    assert_eq!(lost(1, &[]), 1000);
    let mut wrong = sent.to_vec();
    wrong[500] ^= 1;
    assert_eq!(lost(1, &[&wrong]), 1);
    assert!(
        lost(1, &[&sent[..500], &sent[501..]]) > 400,
        "after a gap almost all bytes are wrong"
    );
}

#[test]
fn the_sdk_notices_a_change_at_its_next_poll() {
    let seen = |millis| sdk_polls::next_sdk_poll(Duration::from_millis(millis)).as_millis();
    assert_eq!(
        [0, 1, 200, 201, 501, 951, 1451].map(seen),
        [0, 200, 200, 500, 950, 1450, 1950]
    );
}
