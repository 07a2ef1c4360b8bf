//! The HTTP front door of a node: data at the root of the URL space, operations under `/-/`.
//!
//! | file | concern |
//! | --- | --- |
//! | `builder` | settings, and the gateway that they make |
//! | `listen`, `quiet` | connections: how many, how slow, how they end, and which one gives way |
//! | `service` | one request: whether it may be asked here, and where it goes |
//! | `data` | a request for data, through the router and back |
//! | `operations` | the documents and changes under `/-/` |
//! | `webhook`, `signature` | what forges tell of pushes, and how they prove that it is they |
//! | `page` | what a person gets who opens a node in a browser |
//! | `admission` | what operations may cost: how large, how many at once |
//! | `access` | who may change something, and by which names the node is asked (pure) |
//! | `background` | updates that no client waits for |
//! | `headers`, `problem` | what crosses a hop (pure), and errors as RFC 9457 documents (pure) |
//! | `metrics`, `access_log` | Prometheus text, and a line of the log for each request |
//! | `body`, `progress` | request bodies and responses whose clients stand still |
//! | `state` | what all requests share |
//!
//! No path can be both: a key never has a component that begins with `-`.

mod access;
mod access_log;
mod admission;
mod background;
mod body;
mod builder;
mod data;
mod headers;
mod listen;
#[cfg(feature = "metrics")]
mod metrics;
mod operations;
mod page;
mod problem;
mod progress;
mod quiet;
mod service;
mod signature;
mod state;
#[cfg(test)]
mod tests;
mod webhook;

pub use self::builder::{Gateway, GatewayBuilder};
