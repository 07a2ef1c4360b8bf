//! The gossip of many members in one process, on simulated time: how large its messages are, what it costs, and how soon a
//! death is noticed.
//!
//! chitchat and what stands in front of it are the real ones, with the settings of a node; the network below is a queue for
//! each member. Every member changes its ledger once a second, as in a busy cluster. The large runs are ignored by default:
//!
//! ```sh
//! cargo test --release --lib -- --ignored --nocapture gossip_of
//! ```

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chitchat::{
    ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable, Serializable, spawn_chitchat,
    transport::{Socket, Transport},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    actor::{chitchat_config, gossip_memory},
    identities::Identities,
};
use crate::{
    config::Profile,
    core::membership::{AdvertisedState, LedgerDigest, NodeInfo, Role, Serves},
    net::wire::GOSSIP_BYTES_MAX,
};

/// Letters of a long name.
const NAME_LETTERS: usize = 40;
/// How long a steady cluster is measured.
const STEADY: Duration = Duration::from_secs(20);
/// The test fails if it takes longer than this until all members know a new member, or notice a
/// death.
const PATIENCE: Duration = Duration::from_secs(60);

type Letter = (SocketAddr, Vec<u8>);

/// Carries messages and counts them.
#[derive(Default)]
struct Post {
    boxes: Mutex<BTreeMap<SocketAddr, mpsc::Sender<Letter>>>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    messages: usize,
    bytes: usize,
    largest: usize,
}

#[derive(Clone)]
struct Branch {
    post: Arc<Post>,
    identity: ChitchatId,
}

#[async_trait]
impl Transport for Branch {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let (send, inbox) = mpsc::channel(256);
        self.post.boxes.lock().unwrap().insert(address, send);
        let identities = Identities::new(self.identity.clone(), gossip_memory(&Profile::lan()));
        Ok(Box::new(Counter { post: self.post.clone(), address, inbox, identities, origin: Instant::now() }))
    }
}

struct Counter {
    post: Arc<Post>,
    address: SocketAddr,
    inbox: mpsc::Receiver<Letter>,
    identities: Identities,
    origin: Instant,
}

#[async_trait]
impl Socket for Counter {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let mut bytes = Vec::with_capacity(message.serialized_len());
        message.serialize(&mut bytes);
        let mut counts = self.post.counts.lock().unwrap();
        counts.messages += 1;
        counts.bytes += bytes.len();
        counts.largest = counts.largest.max(bytes.len());
        if let Some(letters) = self.post.boxes.lock().unwrap().get(&to) {
            let _ = letters.try_send((self.address, bytes));
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        let Some((from, bytes)) = self.inbox.recv().await else { return std::future::pending().await };
        let sifted = self.identities.sift(self.origin.elapsed(), from, &bytes).unwrap();
        Ok((from, ChitchatMessage::deserialize(&mut sifted.as_slice())?))
    }
}

struct Members {
    post: Arc<Post>,
    handles: BTreeMap<SocketAddr, ChitchatHandle>,
    version: u64,
}

impl Members {
    async fn start(count: usize) -> Self {
        let post = Arc::new(Post::default());
        let mut members = Self { post: post.clone(), handles: BTreeMap::new(), version: 1 };
        for number in 0..count {
            let address = SocketAddr::from(([127, 0, 0, 1], 1000 + number as u16));
            let identity = ChitchatId::new(format!("{number:0>NAME_LETTERS$}"), 1_795_851_461_783, address);
            let branch = Branch { post: post.clone(), identity: identity.clone() };
            let handle = spawn_chitchat(chitchat_config(identity, &Profile::lan()), pairs(1), &branch).await.unwrap();
            members.handles.insert(address, handle);
        }
        members
    }

    /// A second of a busy cluster.
    async fn second(&mut self) {
        self.version += 1;
        for handle in self.handles.values() {
            let pairs = pairs(self.version);
            handle
                .with_chitchat(|chitchat| {
                    pairs.iter().for_each(|(key, value)| chitchat.self_node_state().set(key, value))
                })
                .await;
        }
        sleep(Duration::from_secs(1)).await;
    }

    /// How many members each member takes for alive, itself included.
    async fn alive(&self) -> Vec<usize> {
        let mut alive = Vec::new();
        for handle in self.handles.values() {
            alive.push(handle.with_chitchat(|chitchat| chitchat.live_nodes().count()).await);
        }
        alive
    }

    /// A member that is alone contacts the seed, as a node does.
    fn contact_seed(&self, alive: &[usize]) {
        for (handle, _) in self.handles.values().zip(alive).filter(|(_, alive)| **alive == 1) {
            let _ = handle.gossip(SocketAddr::from(([127, 0, 0, 1], 1000)));
        }
    }

    /// Waits until every member takes this number of members for alive. Returns after which time
    /// half of them did, and all.
    async fn until_alive(&self, expected: usize) -> (Duration, Duration) {
        let start = Instant::now();
        let mut half = None;
        loop {
            let alive = self.alive().await;
            self.contact_seed(&alive);
            let right = alive.iter().filter(|seen| **seen == expected).count();
            if right * 2 >= alive.len() {
                half.get_or_insert(start.elapsed());
            }
            if right == alive.len() {
                return (half.unwrap(), start.elapsed());
            }
            assert!(start.elapsed() < PATIENCE, "{right} of {} see {expected} alive", alive.len());
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn counted(&self) -> Counts {
        std::mem::take(&mut *self.post.counts.lock().unwrap())
    }
}

fn pairs(version: u64) -> Vec<(String, String)> {
    let facts = NodeInfo {
        state: AdvertisedState::Serving,
        role: Role::Holder,
        weight: 100,
        accepting: true,
        http: Some("http://127.100.100.100:8400".into()),
        ledger: LedgerDigest { version, digest: version },
        catalog: Some(7),
        hot: BTreeMap::new(),
        gone: Some(3),
        clock: Some(1_800_000_000_000),
        serves: Some(Serves::everywhere("git")),
    };
    facts.to_pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Starts a number of members, watches them for a while, kills one, and checks the limits.
async fn gossip_of(count: usize) {
    let mut members = Members::start(count).await;
    let (_, joined) = members.until_alive(count).await;
    members.counted();
    let start = Instant::now();
    while start.elapsed() < STEADY {
        members.second().await;
        assert!(members.alive().await.iter().all(|alive| *alive == count), "a live member is suspected");
    }
    let Counts { messages, bytes, largest } = members.counted();
    let seconds = start.elapsed().as_secs_f64() * count as f64;
    let (address, _) = members.handles.pop_last().unwrap();
    members.post.boxes.lock().unwrap().remove(&address);
    let (half, all) = members.until_alive(count - 1).await;
    println!(
        "{count} members: all known after {joined:.1?}; largest message {largest} bytes; each sends {:.1} messages and {:.0} KB \
         a second; a death is noticed by half after {half:.1?}, by all after {all:.1?}",
        messages as f64 / seconds,
        bytes as f64 / seconds / 1000.0,
    );
    assert!(largest <= GOSSIP_BYTES_MAX, "{largest}");
}

#[tokio::test(start_paused = true)]
async fn gossip_of_twenty_members_suspects_nobody_and_notices_a_death() {
    gossip_of(20).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes a minute"]
async fn gossip_of_a_hundred_members() {
    gossip_of(100).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes many minutes"]
async fn gossip_of_three_hundred_members() {
    gossip_of(300).await;
}
