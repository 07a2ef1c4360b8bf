//! The actors of a node: they perform what `core` decides. No actor names another; they send each
//! other requests through `runtime::ports`.
//!
//! | actor | what it does |
//! | --- | --- |
//! | `membership` | gossips, and publishes the view of the members |
//! | `registry` | owns this node's ledger, follows the others', and keeps the index |
//! | `catalog` | writes intents down, and takes those of others |
//! | `balancer` | looks at keys, and has replicas made, moved and dropped |
//! | `updater` | admits updates, and runs them on a pool of workers |
//! | `refresher` | has held keys asked for at their origin |
//! | `router` | keeps the table of peers in step with the members |

pub(crate) mod balancer;
pub(crate) mod catalog;
pub(crate) mod membership;
pub(crate) mod refresher;
pub(crate) mod registry;
pub(crate) mod router;
pub(crate) mod updater;
