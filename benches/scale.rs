//! A hundred nodes' worth of claims in one process: what they take, how long it takes to learn them, what a pass of the
//! balancer holds up, what lookups cost meanwhile, and how large gossip is.
//!
//! ```sh
//! cargo bench --bench scale                       # everything but the disk: some minutes and 4 GB
//! cargo bench --bench scale -- memory lookup      # parts: memory, lookup, catch-up, gossip
//! cargo bench --bench scale -- disk               # a million small files on the disk of this machine
//! ```

#![allow(clippy::disallowed_methods, missing_docs, reason = "benchmarks measure real time")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use datad_gossip::{
    Client, ClusterKey, Credentials, Node,
    config::{NodeConfig, Profile},
    key::{Key, NodeName},
    providers::{Files, FilesConfig, Memory},
    registry::{
        ClaimState, Delta, HolderState, Incarnation, IndexWriter, KeyHasher, Ledger, LedgerOptions, LedgerWriter,
        Position, Replica,
    },
};
use sha2::{Digest, Sha256};
use tokio::runtime::{HistogramConfiguration, LogHistogram, Runtime};

const NODES: usize = 100;
const KEYS: usize = 1_000_000;
const REPLICAS: usize = 3;
const CLAIMS: usize = KEYS * REPLICAS;
/// Changes in a delta, as on the wire.
const SLICE: usize = 128;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let parts: [(&str, fn()); 5] =
        [("memory", memory), ("lookup", lookup), ("catch-up", catch_up), ("gossip", gossip), ("disk", disk)];
    for (name, part) in parts {
        if wanted.iter().any(|wanted| wanted == name) || wanted.is_empty() && name != "disk" {
            println!("\n{name}");
            part();
        }
    }
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("  {what:58} {value:>16}");
}

fn key(number: usize) -> Key {
    Key::new(format!("github.com/org-{}/repository-{number}", number % 977)).unwrap()
}

fn name(number: usize) -> NodeName {
    NodeName::new(format!("node-{number}")).unwrap()
}

/// The nodes that have a key.
fn holders(number: usize) -> impl Iterator<Item = usize> {
    (0..REPLICAS).map(move |replica| (number * 31 + replica * 37) % NODES)
}

/// Counts what is allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator.
#[allow(unsafe_code, reason = "an allocator that counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATED.fetch_add(bytes, Ordering::Relaxed);
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The ledgers of all nodes, encoded, and where what is learned of them goes.
struct Learned {
    index: IndexWriter,
    names: Vec<NodeName>,
    replicas: Vec<Replica>,
}

impl Learned {
    fn new() -> Self {
        let options = || LedgerOptions { hasher: KeyHasher::seeded(1), ..LedgerOptions::default() };
        Self {
            index: IndexWriter::new(KeyHasher::seeded(1)),
            names: (0..NODES).map(name).collect(),
            replicas: (0..NODES).map(|_| Replica::new(options())).collect(),
        }
    }

    /// As the registry does with what comes in.
    fn take(&mut self, node: usize, encoded: &[u8]) {
        let (mut delta, _): (Delta, _) =
            bincode::serde::decode_from_slice(encoded, bincode::config::standard()).unwrap();
        for change in &mut delta.changes {
            change.key = self.index.interned(change.key.clone());
        }
        for change in self.replicas[node].apply(delta).unwrap() {
            self.index.set(&change.key, &self.names[node], change.after);
        }
    }
}

fn memory() {
    let mut key_bytes = 0;
    let mut writers: Vec<LedgerWriter> =
        (0..NODES).map(|_| LedgerWriter::new(Incarnation(1), LedgerOptions::default())).collect();
    for number in 0..KEYS {
        let key = key(number);
        key_bytes += key.as_str().len();
        holders(number).for_each(|node| drop(writers[node].set(&key, ClaimState::Ready)));
    }
    let encoded: Vec<Vec<Vec<u8>>> = writers.iter().map(|writer| encode(writer.ledger())).collect();
    drop(writers);
    let wire: usize = encoded.iter().flatten().map(Vec::len).sum();
    let rounds = encoded.iter().map(Vec::len).max().unwrap_or(0);

    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut learned = Learned::new();
    let (started, mut longest) = (Instant::now(), Duration::ZERO);
    // All ledgers at the same time, as when a node joins.
    for round in 0..rounds {
        for (node, deltas) in encoded.iter().enumerate() {
            if let Some(bytes) = deltas.get(round) {
                let began = Instant::now();
                learned.take(node, bytes);
                longest = longest.max(began.elapsed());
            }
        }
    }
    let took = started.elapsed();
    let each = |used: usize| format!("{:.1}", used as f64 / CLAIMS as f64);
    let used = ALLOCATED.load(Ordering::Relaxed) - before;
    row("claims, in the ledgers of 100 nodes", CLAIMS);
    row("bytes for each on the wire", each(wire));
    row("decoded, applied and indexed in", format!("{took:.2?}"));
    row("  longest of the parts, of 128 claims", format!("{longest:.2?}"));
    row("megabytes in all", format!("{:.0}", used as f64 / 1e6));
    row("bytes for each claim, beyond the keys' own", each(used - key_bytes));
    let Learned { index, replicas, .. } = learned;
    drop(replicas);
    let index_bytes = ALLOCATED.load(Ordering::Relaxed) - before;
    row("  of these in the ledgers", each(used - index_bytes));
    row("  of these in the index", each(index_bytes - key_bytes));
    drop(index);
}

/// All of a ledger, in the parts in which it travels.
fn encode(ledger: &Ledger) -> Vec<Vec<u8>> {
    let (mut position, mut parts) = (Position::default(), Vec::new());
    while let Some(delta) = ledger.delta_since(&position, SLICE) {
        position = Position { incarnation: delta.incarnation, version: delta.to, base: delta.reach };
        parts.push(bincode::serde::encode_to_vec(&delta, bincode::config::standard()).unwrap());
    }
    parts
}

fn lookup() {
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let mut writer = IndexWriter::new(KeyHasher::seeded(1));
    for (number, key) in keys.iter().enumerate() {
        holders(number).for_each(|node| writer.set(key, &name(node), Some(HolderState::Ready)));
    }
    let index = writer.index();
    let names: Vec<NodeName> = (0..NODES).map(name).collect();
    let read = |seconds: u64| {
        let mut nanos = Vec::with_capacity(10_000_000);
        let (started, mut next) = (Instant::now(), 0usize);
        while started.elapsed() < Duration::from_secs(seconds) {
            next = next.wrapping_add(7_919_777);
            let key = &keys[next % KEYS];
            let began = Instant::now();
            let ready = index.lookup(key, |holders| holders.filter(|(_, state)| *state == HolderState::Ready).count());
            nanos.push(began.elapsed().as_nanos() as u32);
            black_box(ready);
        }
        nanos.sort_unstable();
        let at = |part: f64| nanos[((nanos.len() - 1) as f64 * part) as usize];
        format!("{} / {} / {} ns", at(0.5), at(0.99), at(0.9999))
    };
    row("at rest, median / 99 % / 99.99 %", read(3));
    let stop = Arc::new(AtomicBool::new(false));
    let (stopping, changed) = (stop.clone(), keys.clone());
    let writing = std::thread::spawn(move || {
        let (started, mut done) = (Instant::now(), 0usize);
        while !stopping.load(Ordering::Relaxed) {
            let due = (started.elapsed().as_secs_f64() * 50_000.0) as usize;
            while done < due {
                let state = if done.is_multiple_of(2) { HolderState::Fetching } else { HolderState::Ready };
                writer.set(&changed[done * 104_729 % KEYS], &names[done % NODES], Some(state));
                done += 1;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        done as f64 / started.elapsed().as_secs_f64()
    });
    row("while claims change, median / 99 % / 99.99 %", read(5));
    stop.store(true, Ordering::Relaxed);
    row("  changes a second", format!("{:.0}", writing.join().unwrap()));
}

fn config(seeds: Vec<String>) -> NodeConfig {
    let mut config = NodeConfig::default();
    config.listen = ([127, 0, 0, 1], 0).into();
    (config.seeds, config.replicas, config.profile) = (seeds, REPLICAS, Profile::lan());
    config
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < Duration::from_secs(600), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn start(name: &str, secret: &ClusterKey, seeds: Vec<String>, memory: Memory) -> Node {
    let builder = Node::builder(NodeName::new(name).unwrap()).config(config(seeds)).provider(Arc::new(memory));
    builder.credentials(Credentials::ClusterKey(secret.clone())).start().await.unwrap()
}

async fn all_known(client: &Client, nodes: &[Node]) -> bool {
    let members = client.member_statuses().await;
    let keys =
        |node: &Node| members.iter().find(|found| found.member.name == *node.name()).map_or(0, |found| found.keys);
    nodes.iter().all(|node| keys(node) == KEYS)
}

/// Three nodes that hold everything, so three million claims; then one that knows nothing joins.
fn catch_up() {
    let holding = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let secret = ClusterKey::generate();
    let nodes = holding.block_on(async {
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..REPLICAS {
            let memory = Memory::default();
            (0..KEYS).for_each(|number| memory.insert(key(number), ""));
            let seeds = nodes.iter().map(|node| node.address().to_string()).collect();
            nodes.push(start(&format!("holding-{number}"), &secret, seeds, memory).await);
        }
        for node in &nodes {
            until("all is registered", async || all_known(&node.client(), &nodes).await).await;
        }
        for node in &nodes {
            until("at rest", async || node.client().status().await.converged).await;
        }
        nodes
    });
    let seeds: Vec<String> = nodes.iter().map(|node| node.address().to_string()).collect();
    let measured = measured_runtime();
    let joining = measured.block_on(async {
        let builder = Node::builder(NodeName::new("joining").unwrap()).config(config(seeds));
        let builder = builder.credentials(Credentials::ClusterKey(secret.clone()));
        let started = Instant::now();
        let node = builder.launch().await.unwrap();
        let client = node.client();
        until("everything is known", async || all_known(&client, &nodes).await).await;
        let took = started.elapsed();
        row("claims learned over QUIC on this machine", CLAIMS);
        row("  in, from the start of the node on", format!("{took:.2?}"));
        row("  claims a second", format!("{:.0}", CLAIMS as f64 / took.as_secs_f64()));
        node
    });
    row("  longest time a runtime thread was held meanwhile", longest_poll(&measured));
    measured.block_on(joining.shutdown());
    drop(measured);
    drop(nodes);
    drop(holding);
    balance();
}

/// One node with a million keys goes through all of them, for somebody came.
fn balance() {
    let secret = ClusterKey::generate();
    let measured = measured_runtime();
    let others = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (node, started) = measured.block_on(async {
        let memory = Memory::default();
        (0..KEYS).for_each(|number| memory.insert(key(number), ""));
        let started = Instant::now();
        let node = start("balancing", &secret, Vec::new(), memory).await;
        (node, started)
    });
    row("a node with a million keys in memory serves after", format!("{:.2?}", started.elapsed()));
    measured.block_on(until("all keys are known", async || node.client().status().await.keys == KEYS));
    row("  and has registered all of them after", format!("{:.2?}", started.elapsed()));
    measured.block_on(until("at rest", async || node.client().status().await.converged));
    row("  and has looked at each of them after", format!("{:.2?}", started.elapsed()));
    row("  longest time a runtime thread was held meanwhile", longest_poll(&measured));
    // A new member, whose disk holds everything as well, so that nothing is copied.
    let full = Memory::default();
    (0..KEYS).for_each(|number| full.insert(key(number), ""));
    let other = others.block_on(start("other", &secret, vec![node.address().to_string()], full));
    measured.block_on(until("the other is known", async || {
        node.client().member_statuses().await.iter().all(|member| member.keys == KEYS)
            && node.client().view().ring().nodes().len() == 2
    }));
    let passing = Instant::now();
    measured.block_on(until("at rest", async || node.client().status().await.converged));
    row("a pass over all keys after somebody came, at most", format!("{:.2?}", passing.elapsed()));
    row("  longest time a runtime thread was held until now", longest_poll(&measured));
    drop((node, other));
}

fn measured_runtime() -> Runtime {
    let histogram = LogHistogram::builder()
        .min_value(Duration::from_micros(10))
        .max_value(Duration::from_secs(2))
        .precision_exact(2);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .enable_metrics_poll_time_histogram()
        .metrics_poll_time_histogram_configuration(HistogramConfiguration::log(histogram.build()))
        .build()
        .unwrap()
}

/// The longest and the longest but a few polls of a task, as far as the buckets tell.
fn longest_poll(runtime: &Runtime) -> String {
    let metrics = runtime.metrics();
    let counts: Vec<u64> = (0..metrics.poll_time_histogram_num_buckets())
        .map(|bucket| metrics.poll_time_histogram_bucket_count(0, bucket))
        .collect();
    let all: u64 = counts.iter().sum();
    let beyond = |few: u64| {
        let mut rest = few;
        let bucket = (0..counts.len()).rev().find(|bucket| {
            let reached = counts[*bucket] > rest;
            rest = rest.saturating_sub(counts[*bucket]);
            reached
        });
        bucket.map_or(Duration::ZERO, |bucket| metrics.poll_time_histogram_bucket_range(bucket).end)
    };
    format!("{:.1?} ({:.1?})", beyond(0), beyond(all / 100_000))
}

/// A hundred idle nodes.
fn gossip() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let secret = ClusterKey::generate();
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..NODES {
            let seeds = nodes.iter().take(3).map(|node| node.address().to_string()).collect();
            let builder = Node::builder(name(number)).config(config(seeds)).provider(Arc::new(Memory::default()));
            nodes.push(builder.credentials(Credentials::ClusterKey(secret.clone())).launch().await.unwrap());
        }
        let started = Instant::now();
        let whole = |node: &Node| node.client().view().ring().nodes().len() == NODES;
        until("all are members", async || nodes.iter().all(whole)).await;
        row("nodes that started at once know each other after", format!("{:.2?}", started.elapsed()));
        tokio::time::sleep(Duration::from_secs(20)).await;
        let sent = async || {
            let (mut messages, mut bytes) = (0, 0);
            for node in &nodes {
                let status = node.client().status().await;
                messages += status.gossip_messages;
                bytes += status.gossip_bytes;
            }
            (messages, bytes)
        };
        let (messages, bytes) = sent().await;
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (messages, bytes) = (sent().await.0 - messages, sent().await.1 - bytes);
        row("bytes of a gossip message, on average", bytes / messages.max(1));
        let rate = |number: u64| number as f64 / NODES as f64 / began.elapsed().as_secs_f64();
        row("  messages a second and node", format!("{:.1}", rate(messages)));
        row("  kilobytes a second and node", format!("{:.1}", rate(bytes) / 1e3));
    });
}

/// A million small files that a node finds on its disk when it starts.
fn disk() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    let config_of = || FilesConfig::new(source.to_str().unwrap(), folder.path().join("data"));
    let secret = ClusterKey::generate();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // As the provider lays them out: opening it makes the folders.
        drop(Files::open(config_of()).unwrap());
        let held = folder.path().join("data/held");
        for number in 0..KEYS {
            let key = key(number);
            let hash = hex::encode(Sha256::digest(key.as_str()));
            let slot = held.join(&hash[..2]).join(&hash);
            fs::create_dir_all(&slot).unwrap();
            fs::write(slot.join("datad-key"), key.as_str()).unwrap();
            fs::write(slot.join("manifest.json"), "").unwrap();
        }
        let started = Instant::now();
        let files = Files::open(config_of()).unwrap();
        row("the data directory is open after", format!("{:.2?}", started.elapsed()));
        let builder =
            Node::builder(NodeName::new("starting").unwrap()).config(config(Vec::new())).provider(Arc::new(files));
        let node = builder.credentials(Credentials::ClusterKey(secret)).start().await.unwrap();
        row("the node serves after", format!("{:.2?}", started.elapsed()));
        let client = node.client();
        row("  with so many keys registered", client.status().await.keys);
        until("all keys are found", async || client.status().await.keys == KEYS).await;
        row("all files are registered after", format!("{:.2?}", started.elapsed()));
        node.shutdown().await;
    });
}
