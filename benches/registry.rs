//! The registry: lookups of a million keys beside a bare map and a locked one; changes; catch-up over the wire format.

#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "benchmarks measure real time; criterion's macros have no docs"
)]

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use datad_gossip::{
    Client, ClusterKey, Credentials, Node,
    config::NodeConfig,
    key::{Key, NodeName},
    providers::Memory,
    registry::{
        ClaimState, Delta, HolderState, Incarnation, IndexWriter, KeyHasher, Ledger, LedgerOptions, LedgerWriter,
        Position,
    },
};

const KEYS: usize = 1_000_000;
const CLAIMS: usize = 100_000;
/// Changes in a delta: some 100 KiB on the wire.
const SLICE: usize = 2_000;

fn key(number: usize) -> Key {
    Key::new(format!("github.com/org-{}/repository-{number}", number % 977)).unwrap()
}

/// The keys once, in an order that defeats the caches.
fn scattered(keys: &[Key]) -> impl Iterator<Item = &Key> {
    (0..).map(|n: usize| &keys[n.wrapping_mul(7_919_777) % keys.len()])
}

/// A running node that holds all `keys`, and its client.
fn serving_node(keys: &[Key]) -> (tokio::runtime::Runtime, Node, Client) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let memory = Memory::default();
    for key in keys {
        memory.insert(key.clone(), "");
    }
    let mut config = NodeConfig::default();
    config.listen = ([127, 0, 0, 1], 0).into();
    let builder = Node::builder(NodeName::new("bench").unwrap()).config(config).provider(Arc::new(memory));
    let credentials = Credentials::ClusterKey(ClusterKey::generate());
    let (node, client) = runtime.block_on(async {
        let node = builder.credentials(credentials).start().await.unwrap();
        let client = node.client();
        let started = Instant::now();
        while !client.status().await.converged || client.status().await.keys < keys.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        eprintln!("{} keys on disk were registered in {:?}", keys.len(), started.elapsed());
        (node, client)
    });
    (runtime, node, client)
}

fn lookup(c: &mut Criterion) {
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let nodes: Vec<NodeName> = (0..100).map(|n| NodeName::new(format!("node-{n}")).unwrap()).collect();
    let mut writer = IndexWriter::new(KeyHasher::seeded(1));
    let bare = papaya::HashMap::<Key, u64, KeyHasher>::with_hasher(KeyHasher::seeded(1));
    let mut locked = HashMap::<Key, Vec<(u32, HolderState)>>::new();
    for (number, key) in keys.iter().enumerate() {
        for replica in 0..2 {
            writer.set(key, &nodes[(number + replica * 37) % 100], Some(HolderState::Ready));
        }
        bare.pin().insert(key.clone(), number as u64);
        locked.insert(key.clone(), vec![(number as u32 % 100, HolderState::Ready), (7, HolderState::Ready)]);
    }
    let (index, locked) = (writer.index(), RwLock::new(locked));
    let mut group = c.benchmark_group("lookup in 1 M keys");
    let mut next = scattered(&keys);
    let ready = |(_, state): &(&NodeName, HolderState)| *state == HolderState::Ready;
    group.bench_function("index", |b| {
        b.iter(|| index.lookup(next.next().unwrap(), |holders| holders.filter(ready).count()));
    });
    let (_runtime, _node, client) = serving_node(&keys);
    let mut next = scattered(&keys);
    group.bench_function("Client::nodes_for_key", |b| b.iter(|| client.nodes_for_key(next.next().unwrap())));
    let mut next = scattered(&keys);
    group.bench_function("bare papaya", |b| b.iter(|| bare.pin().get(next.next().unwrap()).copied()));
    let mut next = scattered(&keys);
    group.bench_function("RwLock<HashMap>", |b| {
        b.iter(|| locked.read().unwrap().get(next.next().unwrap()).map(|holders| holders.len()));
    });
    group.finish();
    let mut group = c.benchmark_group("change in 1 M keys");
    let mut next = scattered(&keys);
    let mut flip = 0usize;
    group.bench_function("index set", |b| {
        b.iter(|| {
            flip += 1;
            let state = if flip.is_multiple_of(2) { HolderState::Ready } else { HolderState::Fetching };
            writer.set(next.next().unwrap(), &nodes[flip % 100], Some(state));
        });
    });
    group.finish();
}

fn ledger(c: &mut Criterion) {
    let keys: Vec<Key> = (0..CLAIMS).map(key).collect();
    let mut writer = LedgerWriter::new(Incarnation(1), LedgerOptions::default());
    for key in &keys {
        writer.set(key, ClaimState::Ready);
    }
    let config = bincode::config::standard();
    let slices = |decode: fn(&[u8]) -> Delta| {
        let mut copy = Ledger::default();
        while let Some(delta) = writer.ledger().delta_since(&copy.position(), SLICE) {
            let bytes = bincode::serde::encode_to_vec(&delta, config).unwrap();
            copy.apply(decode(&bytes)).unwrap();
        }
        assert_eq!(copy.digest(), writer.ledger().digest());
        copy
    };
    let decode = |bytes: &[u8]| bincode::serde::decode_from_slice(bytes, bincode::config::standard()).unwrap().0;
    let whole = writer.ledger().delta_since(&Position::default(), usize::MAX).unwrap();
    eprintln!("{} bytes for {CLAIMS} claims", bincode::serde::encode_to_vec(&whole, config).unwrap().len());

    let mut group = c.benchmark_group("ledger");
    group.sample_size(20).measurement_time(Duration::from_secs(3)).throughput(Throughput::Elements(CLAIMS as u64));
    group.bench_function("write 100 k claims", |b| {
        b.iter(|| {
            let mut writer = LedgerWriter::new(Incarnation(1), LedgerOptions::default());
            for key in &keys {
                writer.set(key, ClaimState::Ready);
            }
            writer
        });
    });
    group.bench_function("apply 100 k claims", |b| {
        b.iter_batched(|| whole.clone(), |delta| Ledger::default().apply(delta).unwrap(), BatchSize::LargeInput);
    });
    group.bench_function("catch up on 100 k claims, encoded", |b| b.iter(|| black_box(slices(decode))));
    group.finish();
}

criterion_group!(benches, lookup, ledger);
criterion_main!(benches);
