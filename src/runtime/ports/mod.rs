//! What others may ask of each actor.
//!
//! A port is an enum of requests in plain types and the methods that send them. Only these methods build a request, so a
//! caller names no actor: it knows what can be asked, and the supervisor decides which actor answers. With etcd, other
//! actors stand behind the ports of membership and the registry, and none behind [`ledgers`].
//!
//! A method without a reply drops its request if the actor is not there: all that is sent so comes again, or is found
//! out by the actor that takes its place. A method with a reply says [`Gone`](super::mailbox::Gone) then, and is cancel
//! safe: the actor may still act on a request whose caller has gone.

pub(crate) mod balancer;
pub(crate) mod catalog;
pub(crate) mod ledgers;
pub(crate) mod membership;
pub(crate) mod refresher;
pub(crate) mod registry;
pub(crate) mod router;
pub(crate) mod updater;

use crate::runtime::mailbox::Mailbox;

/// The mailboxes of the actors of one node.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    pub(crate) membership: Mailbox<membership::Request>,
    pub(crate) registry: Mailbox<registry::Request>,
    /// Empty where etcd coordinates.
    pub(crate) ledgers: Mailbox<ledgers::Request>,
    pub(crate) catalog: Mailbox<catalog::Request>,
    pub(crate) updater: Mailbox<updater::Request>,
    pub(crate) balancer: Mailbox<balancer::Request>,
    pub(crate) router: Mailbox<router::Request>,
    /// Empty if no key is to be refreshed.
    pub(crate) refresher: Mailbox<refresher::Request>,
}
