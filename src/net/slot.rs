//! What is known of one address: a connection, a dial on its way, or why there is none.

use std::sync::Arc;

use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::{errors::DialError, peer::Peer};

/// A dial on its way, for all who wait for it.
pub(super) type Dial = Shared<BoxFuture<'static, Result<Arc<Peer>, DialError>>>;

/// What is known of one address.
pub(super) enum ConnectionState {
    Dialling(Dial),
    Up(Arc<Peer>),
    Down { error: DialError, failures: u32, retry: Instant },
}
