//! What all requests of one gateway share.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

#[cfg(feature = "metrics")]
use super::metrics::Metrics;
use super::{
    access::Access, admission::Admission, background::Background, progress::Responses, signature::WebhookSecret,
};
use crate::{client::Client, transport::PathTransport, util::places::Places};

/// What all requests share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) client: Client,
    pub(super) transport: PathTransport,
    pub(super) access: Access,
    pub(super) webhook_secret: Option<WebhookSecret>,
    /// Places for requests for data.
    pub(super) requests: Places<Option<IpAddr>>,
    pub(super) responses: Responses,
    /// How long a client may send or take in next to nothing.
    pub(super) client_patience: Duration,
    pub(super) admission: Arc<Admission>,
    pub(super) background: Background,
    #[cfg(feature = "metrics")]
    pub(super) metrics: Metrics,
    /// Whether the node was seen to have joined; it stays so.
    pub(super) joined: AtomicBool,
}
