//! A real disk that fills up, small and in memory: nothing half is ever seen on it, other nodes take what is new, and it goes
//! on when there is room. Skipped, with a line that says so, where mounting is not permitted.

use std::{collections::BTreeSet, io::Write, path::Path, process::Command};

use http::{Method, StatusCode};
use http_body_util::Empty;
use serde_json::Value;

use super::{
    harness::{Checkout, Cluster, QUICK, Serve, Upstream, eventually, get, send},
    memory::noise,
};

const DISK_MIB: u64 = 32;
/// More than remains when the disk is full to [`FILLED`].
const LARGE_BYTES: usize = 8 << 20;
/// Between the watermarks: new keys are taken, but a large one does not fit.
const FILLED: f64 = 0.85;

/// A file system of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={DISK_MIB}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output().unwrap();
        if mounted.status.success() {
            return Some(Self(dir));
        }
        let complaint = String::from_utf8_lossy(&mounted.stderr).to_lowercase();
        let forbidden = ["permission denied", "superuser", "not permitted"].iter().any(|why| complaint.contains(why));
        assert!(forbidden, "cannot mount a small disk: {complaint}");
        eprintln!("SKIPPED: only who may mount can have a small disk: {complaint}");
        None
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.0.path().join("ballast")
    }

    /// Fills it up to [`FILLED`] with something that is no key.
    fn fill(&self) {
        let found = rustix::fs::statvfs(self.0.path()).unwrap();
        let wanted = (found.f_blocks as f64 * FILLED) as u64 - (found.f_blocks - found.f_bfree);
        self.take(wanted * found.f_frsize);
    }

    /// Fills it up to the last `kib` KiB.
    fn fill_but(&self, kib: u64) {
        let found = rustix::fs::statvfs(self.0.path()).unwrap();
        self.take(found.f_bavail * found.f_frsize - (kib << 10));
    }

    fn take(&self, bytes: u64) {
        let bytes = vec![0; usize::try_from(bytes).unwrap()];
        std::fs::File::create(self.ballast()).unwrap().write_all(&bytes).unwrap();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while something on it is still open.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Three nodes, of which `n1` lives on the small disk. Each key has one owner.
async fn cluster(disk: &SmallDisk, provider: &[&str]) -> Cluster {
    let path = disk.0.path().to_owned();
    let small = move |node: &mut Serve| {
        if node.name == "n1" {
            node.use_data(&path);
            node.with("--disk-high", "0.9");
            node.with("--disk-low", "0.7");
        }
    };
    Cluster::start_with(3, &format!("{QUICK}replicas = 1\n"), provider, small).await
}

/// Keys that nobody has yet and that belong on `n1`.
async fn of_n1(cluster: &Cluster, prefix: &str, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    for number in 0.. {
        let key = format!("{prefix}/number{number}");
        if cluster.nodes[1].locate(&key).await["owners"][0] == "n1" {
            found.push(key);
        }
        if found.len() == count {
            break;
        }
    }
    found
}

async fn until_n1_accepts(cluster: &Cluster, accepts: bool) {
    for node in &cluster.nodes {
        eventually(&format!("{} sees that n1 accepts keys: {accepts}", node.name), || async {
            let members: Value = serde_json::from_str(&node.ask(&["members", "--json"]).await.unwrap()).unwrap();
            let n1 = members.as_array().unwrap().iter().find(|member| member["name"] == "n1").unwrap();
            n1["accepting"] == accepts
        })
        .await;
    }
}

/// Waits until `n1` knows how full its disk is.
async fn until_seen(n1: &Serve, full: bool) {
    eventually("the disk has been looked at", || async {
        let status = n1.status().await.unwrap();
        let share = status["disk"]["used"].as_f64().unwrap_or(0.0) / status["disk"]["total"].as_f64().unwrap_or(1.0);
        share > FILLED - 0.02 && share < 0.9 && status["full"] == full
    })
    .await;
}

/// Nothing half is visible, nor does it take up room.
async fn is_clean(n1: &Serve, kept: &[(std::path::PathBuf, u64, std::time::SystemTime)], provider: &str) {
    assert_eq!(n1.kept(), kept, "nothing came and nothing changed");
    let scratches = n1.data.join(provider).join("tmp");
    eventually("scratches are deleted", || async { is_empty(&scratches) }).await;
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[tokio::test]
async fn files_that_do_not_fit_on_a_disk_go_elsewhere_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let upstream = Upstream::start().await;
    let cluster = cluster(&disk, &["--files", &upstream.files_url()]).await;
    let (n1, n2) = (&cluster.nodes[0], &cluster.nodes[1]);
    let old = of_n1(&cluster, "old", 1).await.remove(0);
    upstream.put_file(&old, "old", "text/plain");
    assert_eq!(get(n2.http, &format!("/{old}")).await.unwrap().text(), "old");
    disk.fill();
    until_seen(n1, false).await;
    let kept = n1.kept();

    let large = noise(1, LARGE_BYTES);
    let key = of_n1(&cluster, "large", 1).await.remove(0);
    upstream.put_file(&key, large.clone(), "text/plain");
    let answer = get(n2.http, &format!("/{key}")).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, LARGE_BYTES));
    assert_ne!(answer.header("x-datad-node"), "n1");
    until_n1_accepts(&cluster, false).await;
    until_seen(n1, true).await;
    let shown = n1.ask(&["status"]).await.unwrap();
    assert!(shown.contains("MiB used") && shown.contains("full"), "{shown}");
    for number in 0..9 {
        let key = format!("small/{number}");
        upstream.put_file(&key, key.clone(), "text/plain");
        assert_eq!(get(cluster.nodes[number % 3].http, &format!("/{key}")).await.unwrap().text(), key);
        assert_ne!(cluster.until_held(&key, 1).await, ["n1"]);
    }
    is_clean(n1, &kept, "files").await;
    let answer = get(n2.http, &format!("/{old}")).await.unwrap();
    assert_eq!((answer.header("x-datad-node"), answer.text().as_str()), ("n1", "old"));

    disk.make_room();
    until_n1_accepts(&cluster, true).await;
    let later = of_n1(&cluster, "later", 1).await.remove(0);
    upstream.put_file(&later, large.clone(), "text/plain");
    assert_eq!(get(n2.http, &format!("/{later}")).await.unwrap().body.len(), LARGE_BYTES);
    assert_eq!(cluster.until_held(&later, 1).await, ["n1"]);
}

#[tokio::test]
async fn a_repository_that_does_not_fit_on_a_disk_goes_elsewhere_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let upstream = Upstream::start().await;
    let cluster = cluster(&disk, &["--git", &upstream.git_template()]).await;
    let (n1, n2) = (&cluster.nodes[0], &cluster.nodes[1]);
    let large = noise(2, LARGE_BYTES);
    let old = of_n1(&cluster, "old", 1).await.remove(0);
    upstream.create(&old, &[("file", b"old")]).await;
    Checkout::clone(n2.http, &format!("/{old}"), &[]).await.unwrap();
    disk.fill();
    until_seen(n1, false).await;
    let kept = n1.kept();

    let key = of_n1(&cluster, "large", 1).await.remove(0);
    upstream.create(&key, &[("blob", &large)]).await;
    let clone = Checkout::clone(n2.http, &format!("/{key}"), &[]).await.unwrap();
    assert_eq!(std::fs::metadata(clone.path.join("blob")).unwrap().len(), LARGE_BYTES as u64);
    assert_ne!(cluster.until_held(&key, 1).await, ["n1"]);
    until_n1_accepts(&cluster, false).await;
    is_clean(n1, &kept, "git").await;
    // What is there does not fit any more either, and stays as it was.
    upstream.commit(&old, &[("blob", &large)]).await;
    assert!(n1.ask(&["update", &old, "--wait"]).await.unwrap_err().contains("No space left"));
    let clone = Checkout::clone(n2.http, &format!("/{old}"), &[]).await.unwrap();
    assert_eq!(clone.read("file"), "old");
    is_clean(n1, &kept, "git").await;

    disk.make_room();
    until_n1_accepts(&cluster, true).await;
    n2.ask(&["update", &old, "--wait"]).await.unwrap();
    let clone = Checkout::clone(n2.http, &format!("/{old}"), &[]).await.unwrap();
    assert_eq!(std::fs::metadata(clone.path.join("blob")).unwrap().len(), LARGE_BYTES as u64);
    let later = of_n1(&cluster, "later", 1).await.remove(0);
    upstream.create(&later, &[("blob", &large)]).await;
    Checkout::clone(n2.http, &format!("/{later}"), &[]).await.unwrap();
    assert_eq!(cluster.until_held(&later, 1).await, ["n1"]);
}

/// Gets `path` as a client does that heeds `Retry-After`: an answer is either what it should be, or 503 with a time.
async fn get_patiently(node: &Serve, path: &str) -> String {
    let got = tokio::sync::Mutex::new(String::new());
    eventually(&format!("{path} is served"), || async {
        let answer = get(node.http, path).await.unwrap();
        if answer.status == StatusCode::OK {
            *got.lock().await = answer.text();
            return true;
        }
        assert!(matches!(answer.status.as_u16(), 503 | 504), "{}", answer.text());
        assert!(answer.header("retry-after").parse::<u64>().is_ok(), "{}", answer.text());
        false
    })
    .await;
    got.into_inner()
}

/// Nodes that each live on a small disk, and give up only copies of what was not used within three seconds.
async fn small_cluster(disks: &[SmallDisk], provider: &[&str]) -> Cluster {
    let paths: Vec<_> = disks.iter().map(|disk| disk.0.path().to_owned()).collect();
    let config =
        format!("{}replicas = 1\nrequest_patience = \"3s\"\n", QUICK.replace("request_patience = \"25s\"\n", ""));
    let config = config.replace("disk_high = 1.0\ndisk_low = 0.999\n", "disk_high = 0.9\ndisk_low = 0.7\n");
    let small = move |node: &mut Serve| {
        let number: usize = node.name[1..].parse().unwrap();
        node.use_data(&paths[number - 1]);
    };
    Cluster::start_with(disks.len(), &config, provider, small).await
}

#[tokio::test]
async fn cold_files_are_served_beyond_the_room_of_all_disks() {
    let (Some(one), Some(other)) = (SmallDisk::mount(), SmallDisk::mount()) else { return };
    let upstream = Upstream::start().await;
    let disks = [one, other];
    let cluster = small_cluster(&disks, &["--files", &upstream.files_url()]).await;
    let content = |number: u64| String::from_utf8(vec![b'a' + (number % 26) as u8; 2 << 20]).unwrap();
    upstream.put_file("pinned", "pinned", "text/plain");
    cluster.nodes[0].ask(&["pin", "pinned"]).await.unwrap();
    cluster.until_held("pinned", 1).await;
    // Half as much again as both disks have room for.
    for number in 0..DISK_MIB + DISK_MIB / 2 {
        upstream.put_file(&format!("file{number}"), content(number), "text/plain");
        let node = &cluster.nodes[number as usize % 2];
        assert!(get_patiently(node, &format!("/file{number}")).await == content(number), "file{number}");
    }
    cluster.until_held("pinned", 1).await;
    assert_eq!(upstream.reads("pinned"), 1, "it never went");
    assert!(get_patiently(&cluster.nodes[1], "/file0").await == content(0), "what was given up comes again");
}

#[tokio::test]
async fn cold_repositories_are_served_beyond_the_room_of_all_disks() {
    let Some(disk) = SmallDisk::mount() else { return };
    let upstream = Upstream::start().await;
    let disks = [disk];
    let cluster = small_cluster(&disks, &["--git", &upstream.git_template()]).await;
    let node = &cluster.nodes[0];
    for number in 0..10 {
        let key = format!("org/repo{number}");
        upstream.create(&key, &[("blob", &noise(number, 4 << 20)), ("name", key.as_bytes())]).await;
        eventually(&format!("{key} is cloned"), || async {
            Checkout::clone(node.http, &format!("/{key}"), &[]).await.is_ok_and(|clone| clone.read("name") == key)
        })
        .await;
    }
    let keys: Value = serde_json::from_str(&node.ask(&["keys", "--json"]).await.unwrap()).unwrap();
    assert!(keys.as_array().unwrap().len() < 10, "some are not held any more: {keys}");
}

/// Pins these keys at the node, one after the other; those that it acknowledged.
async fn pin_all(node: &Serve, names: impl Iterator<Item = String>) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for name in names {
        let request = http::Request::builder().method(Method::PUT).uri(format!("/-/pins/{name}"));
        let request = request.header(http::header::AUTHORIZATION, node.authorization());
        let answer = send(node.http, request.body(Empty::new()).unwrap()).await.unwrap();
        if answer.status.is_success() {
            acknowledged.insert(name);
        }
    }
    acknowledged
}

async fn pinned(node: &Serve) -> BTreeSet<String> {
    let pins: Value = serde_json::from_str(&node.ask(&["pins", "--json"]).await.unwrap()).unwrap();
    pins.as_array().unwrap().iter().map(|pin| pin["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_pin_that_was_acknowledged_on_a_full_disk_survives_kill_9() {
    let Some(disk) = SmallDisk::mount() else { return };
    let upstream = Upstream::start().await;
    let path = disk.0.path().to_owned();
    let on_small_disk = |node: &mut Serve| node.use_data(&path);
    let mut cluster = Cluster::start_with(1, QUICK, &["--files", &upstream.files_url()], on_small_disk).await;
    let n1 = &mut cluster.nodes[0];
    let names = |from: u32, to: u32| (from..to).map(|number| format!("pinned/{number}"));
    let mut acknowledged = pin_all(n1, names(0, 50)).await;
    assert_eq!(acknowledged.len(), 50);
    disk.fill_but(8);
    acknowledged.extend(pin_all(n1, names(50, 450)).await);
    assert!(acknowledged.len() < 450, "the disk is full");
    let trouble = n1.status().await.unwrap()["trouble"].clone();
    assert!(trouble.as_str().is_some_and(|why| why.contains("No space left")), "{trouble}");

    n1.kill9();
    n1.restart().await;
    let found = pinned(n1).await;
    let lost: Vec<&String> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());

    disk.make_room();
    acknowledged.extend(pin_all(n1, names(450, 500)).await);
    n1.kill9();
    n1.restart().await;
    let found = pinned(n1).await;
    assert!(acknowledged.is_subset(&found) && found.contains("pinned/499"), "writing goes on when there is room");
    assert_eq!(n1.status().await.unwrap()["trouble"], Value::Null);
}
