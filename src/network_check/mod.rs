//! Checks with two pods whether the cluster enforces NetworkPolicy.
//!
//! A server listens on three ports. An ingress policy on the server denies one of them, an egress policy on the client
//! another. The client must reach the third one, and neither of the other two.

mod check;
mod pod_state;
mod report;

pub(crate) use self::check::check;
pub(crate) use self::report::{Enforcement, Report};
