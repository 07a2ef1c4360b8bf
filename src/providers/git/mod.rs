//! Git repositories: mirrored by the system's git, served to any git client over smart HTTP.
//!
//! A key is the path of a repository without `.git`. A template such as `https://{key}.git` says where keys come from;
//! one that starts with `{key}` takes the host from the key. Concerns and where they live:
//!
//! | file | concern |
//! | --- | --- |
//! | `config`, `setup` | settings, and the provider's parts |
//! | `provider` | what a node asks of it |
//! | `path` | from a request path to a key, and what the request wants (pure) |
//! | `template` | from a key to a URL that the key cannot bend (pure) |
//! | `upstream` | where an origin may be, its credentials, and where it has moved |
//! | `store`, `readers` | all mirrors, and who reads which |
//! | `mirror` | cloning and fetching |
//! | `prune` | letting go of what became unreachable |
//! | `outcome` | what git meant when it failed (pure) |
//! | `watch`, `limits` | whether it gets on, and what it may take |
//! | `process` | running git, with a scrubbed environment, killed with all its children |
//! | `backend`, `cgi` | serving through `git http-backend` |
//! | `early`, `making` | what clients get while a mirror is being made |
//! | `packets`, `references` | what git's protocol says of both (pure) |
//! | `bridge` | fetching from another node |
//!
//! Served are clones and fetches, shallow and partial ones too. Pushes, the dumb protocol and Git LFS are refused, before
//! anything is fetched.

mod backend;
mod bridge;
mod cgi;
mod config;
mod describing;
mod early;
mod limits;
mod making;
mod mirror;
mod outcome;
mod packets;
mod path;
mod process;
mod provider;
mod prune;
mod readers;
mod references;
mod setup;
mod store;
mod template;
#[cfg(test)]
mod tests;
mod turns;
mod upstream;
mod watch;

pub use self::{
    config::{GitConfig, GitError},
    limits::limit_supervisor,
    setup::Git,
};
