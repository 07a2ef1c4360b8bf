//! Clusters that are coordinated by a real etcd: what holds for the others holds for them, and what is their own.
//!
//! | file | what it shows |
//! | --- | --- |
//! | `../ancestor.rs`, `../cluster.rs`, `../process/` | the ancestor's demands, the promises of a cluster, and the program with real processes, again in this mode |
//! | `layout` | what outsiders read in etcd, and what comes of what they write |
//! | `trouble` | etcd that is away, forgets, compacts, is full, loses its leader, or does not let anybody in |
//! | `moving` | a cluster that leaves etcd, node by node |
//! | `scale` | tens of thousands of registrations |

#![allow(clippy::disallowed_methods, reason = "tests run on the real machine")]
#![allow(clippy::duplicate_mod, reason = "the other test programs are modules here, each with its own helpers")]

#[path = "../ancestor.rs"]
mod ancestor;
#[path = "../cluster.rs"]
mod cluster;
mod layout;
mod moving;
#[path = "../process/main.rs"]
mod process;
mod proxy;
mod scale;
mod trouble;
