//! Files: objects of a directory or an object store, copied to local disk and served from there.
//!
//! Without a key depth each object is a key of its own. With a depth of N, the first N components of a path are the key,
//! and it holds all objects below; a path of fewer components is an object of its own. Concerns and where they live:
//!
//! | file | concern |
//! | --- | --- |
//! | `config`, `setup` | settings, and the provider's parts |
//! | `provider` | what a node asks of it |
//! | `content`, `source` | what a source says of an object; directories, HTTP servers, S3 and others |
//! | `web`, `connector` | HTTP servers: what they say, and where they lead |
//! | `resume` | reading on where an origin broke off |
//! | `manifest` | what a key holds (pure) |
//! | `cache` | keeping it on disk, changed in one step |
//! | `fetch` | bringing it up to date, from the source or a peer |
//! | `decide` | ranges and conditions (pure) |
//! | `head`, `respond` | serving |
//! | `preview` | heads of objects that no node holds yet |
//! | `incoming` | what is here of objects that are still being fetched |

mod cache;
mod config;
mod connector;
mod content;
mod decide;
mod fetch;
mod head;
mod incoming;
mod manifest;
mod preview;
mod provider;
mod respond;
mod resume;
mod setup;
mod source;
#[cfg(test)]
mod tests;
mod web;
#[cfg(test)]
mod web_tests;

pub use self::{
    config::{FilesConfig, FilesError},
    setup::Files,
};
