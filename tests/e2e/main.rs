//! End to end on a real cluster with the chart installed: `make e2e`. Real API server, real kubelet, real pods.
#![allow(clippy::unwrap_used)]

mod endings;
mod examples;
mod sessions;
mod shapes;
mod stopping;
mod support;
mod takeaways;
