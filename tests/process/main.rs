//! The program as its users see it: real processes, real sockets, real disks, the system's git.
//!
//! Each test has clusters, an upstream and folders of its own, and leaves nothing behind. When one fails, the ends of its
//! nodes' logs are printed.
//!
//! | file | what it shows |
//! | --- | --- |
//! | `git` | clones and fetches of every kind, through any node; upstreams that are slow, down, or do not know |
//! | `drain` | a rolling restart while requests go on |
//! | `files` | whole and partial files, conditions, types, and paths that are not there |
//! | `first` | a node that is the first process of a container leaves no zombies |
//! | `full` | a disk that fills up: nothing half is seen, other nodes take what is new, and all goes on when there is room |
//! | `credentials` | what an origin is shown is seen nowhere else |
//! | `death` | nodes that are killed, frozen and brought back while requests go on |
//! | `intents` | pins and forgets, through the death of all nodes at once |
//! | `life` | starting, stopping, who is let in, and `dev` |
//! | `lifeline` | the programs of a node end with it |
//! | `input` | requests that nobody honest makes |
//! | `redirects` | whose redirects are followed, where to, and what is shown there |
//! | `private` | what is on a node's disk is for its user alone |
//! | `patience` | what clients get while a repository or a file is still being fetched |
//! | `removal` | taking a machine off the list that is gone for good |
//! | `memory` | large repositories through small processes |

#![allow(clippy::disallowed_methods, reason = "tests run on the real machine")]

mod credentials;
mod death;
mod descriptors;
mod drain;
mod files;
mod first;
mod full;
mod git;
pub(crate) mod harness;
mod input;
mod intents;
mod life;
mod lifeline;
mod memory;
mod patience;
mod private;
mod redirects;
mod removal;
