//! The ring: built at every change of membership, looked up for every request and for every key of every plan.

#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "benchmarks measure real time; criterion's macros have no docs"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use datad_gossip::{
    key::{Key, NodeName},
    placement::{Ring, RingOptions},
};

fn ring_of(nodes: usize) -> Ring {
    let members = (0..nodes).map(|number| (NodeName::new(format!("node-{number}")).unwrap(), 100));
    Ring::build(members, RingOptions::default())
}

fn placement(c: &mut Criterion) {
    c.bench_function("ring/build 100 nodes", |b| b.iter(|| ring_of(black_box(100))));
    let ring = ring_of(100);
    let keys: Vec<Key> = (0..10_000).map(|n| Key::new(format!("github.com/org-{n}/repo")).unwrap()).collect();
    let mut next = keys.iter().cycle();
    c.bench_function("ring/3 owners of 100 nodes", |b| {
        b.iter(|| ring.owners(next.next().unwrap(), 3).map(|name| name.as_str().len()).sum::<usize>());
    });
    let (mut next, node) = (keys.iter().cycle(), NodeName::new("node-7").unwrap());
    c.bench_function("ring/owns of 100 nodes", |b| b.iter(|| ring.owns(&node, next.next().unwrap(), 3)));
}

criterion_group!(benches, placement);
criterion_main!(benches);
