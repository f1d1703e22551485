//! Whether the cluster enforces NetworkPolicy: the leader checks it at the start of its term and periodically, and
//! publishes the result.

mod checker;
mod knowledge;
mod network_status;
mod network_view;
mod publish;

pub(crate) use self::checker::Checker;
pub(crate) use self::network_status::NetworkStatus;
pub(crate) use self::network_view::NetworkView;
