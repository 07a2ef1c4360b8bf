//! Nodes that cannot find their cluster, as real processes: none of them looks healthy, and each says why.

#![allow(clippy::disallowed_methods, reason = "tests run on the real machine")]

#[path = "process/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other test programs use the rest")]
mod harness;

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519, date_time_ymd};
use serde_json::Value;

use self::harness::{Cluster, QUICK, Serve, eventually, get, port, write_key};

/// A folder with one file to serve.
fn source() -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("a"), "a").unwrap();
    source
}

/// Waits until `node` serves alone, and says so of its only seed; then nothing about it looks healthy.
async fn until_it_says(node: &Serve, reason: &str) -> Value {
    eventually(&format!("{} says {reason:?}", node.name), || async {
        let Some(status) = node.status().await else { return false };
        node.state_of(&node.name).await == "serving"
            && status["seeds"][0]["reason"].as_str().is_some_and(|said| said.contains(reason))
    })
    .await;
    let status = node.status().await.unwrap();
    assert_eq!((&status["seeds"][0]["answers"], &status["converged"]), (&false.into(), &false.into()), "{status}");
    let ready = get(node.http, "/-/readyz").await.unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains(reason), "{}", ready.text());
    assert!(status["waiting_for"].to_string().contains(reason), "{status}");
    let shown = node.ask(&["status"]).await.unwrap();
    assert!(shown.contains("0 of 1 answer") && shown.contains(reason), "{shown}");
    assert!(!node.output().contains("ready"), "{}", node.output());
    status
}

#[tokio::test]
async fn a_node_with_another_cluster_key_is_not_ready_and_says_why() {
    let source = source();
    let cluster = Cluster::start(1, QUICK, &["--files", source.path().to_str().unwrap()]).await;
    let key_file = cluster.folder().join("other.key");
    write_key(&key_file);
    let mut stranger = cluster.node("stranger");
    stranger.use_key(&key_file);
    stranger.start();
    until_it_says(&stranger, "another cluster key").await;
    assert_eq!(get(cluster.nodes[0].http, "/-/readyz").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_node_that_is_its_own_only_seed_is_not_ready_and_says_so() {
    let source = source();
    let cluster = Cluster::start(0, QUICK, &["--files", source.path().to_str().unwrap()]).await;
    let mut node = cluster.node("n1");
    node.add_seeds(&[node.port]);
    node.start();
    until_it_says(&node, "it is this node itself").await;
}

#[tokio::test]
async fn a_node_whose_seeds_are_all_down_is_ready_once_one_is_back_and_stays_so() {
    let source = source();
    let mut cluster = Cluster::start(2, QUICK, &["--files", source.path().to_str().unwrap()]).await;
    get(cluster.nodes[1].http, "/a").await.unwrap();
    cluster.until_held("a", 2).await;
    for node in &mut cluster.nodes {
        node.kill9();
    }
    cluster.nodes[1].start();
    until_it_says(&cluster.nodes[1], "no answer").await;
    assert_eq!(get(cluster.nodes[1].http, "/a").await.unwrap().text(), "a", "what it has is served all the same");

    cluster.nodes[0].start();
    for node in &cluster.nodes {
        node.until_ready().await;
    }
    cluster.nodes[0].kill9();
    let node = &cluster.nodes[1];
    eventually("the loss is told", || async {
        let Some(status) = node.status().await else { return false };
        status["members"] == 1
            && status["seeds"][0]["answers"] == false
            && status["waiting_for"] != Value::Array(vec![])
    })
    .await;
    assert_eq!(get(node.http, "/-/readyz").await.unwrap().status, 200, "what is lost later changes no readiness");
}

#[tokio::test]
async fn nodes_that_all_name_each_other_come_up_together() {
    let source = source();
    let mut cluster = Cluster::start(0, QUICK, &["--files", source.path().to_str().unwrap()]).await;
    let mut nodes: Vec<Serve> = ["n1", "n2", "n3"].map(|name| cluster.node(name)).into();
    let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
    for node in &mut nodes {
        node.add_seeds(&ports);
        node.start();
    }
    for node in &nodes {
        node.until_ready().await;
    }
    let own = |status: &Value| {
        let seeds = status["seeds"].as_array().unwrap().clone();
        seeds.into_iter().filter(|seed| seed["answers"] == false).collect::<Vec<_>>()
    };
    eventually("all seeds but itself answer", || async {
        let Some(status) = nodes[0].status().await else { return false };
        let silent = own(&status);
        silent.len() == 1 && silent[0]["reason"] == "it is this node itself"
    })
    .await;
    cluster.nodes = nodes;
}

#[tokio::test]
async fn a_node_waits_for_as_many_members_as_it_was_told_to_expect() {
    let source = source();
    let mut cluster = Cluster::start(0, QUICK, &["--files", source.path().to_str().unwrap()]).await;
    let mut first = cluster.node("n1");
    first.with("--expect-members", "2");
    first.start();
    cluster.nodes.push(first);
    let first = &cluster.nodes[0];
    eventually("it serves", || async { first.status().await.is_some() && first.state_of("n1").await == "serving" })
        .await;
    let ready = get(first.http, "/-/readyz").await.unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("1 of the 2 that are expected"), "{}", ready.text());
    assert!(first.status().await.unwrap()["waiting_for"][0].as_str().unwrap().contains("1 of the 2"));
    assert!(!first.output().contains("ready"));

    let mut second = cluster.node("n2");
    second.start();
    cluster.nodes.push(second);
    for node in &cluster.nodes {
        node.until_ready().await;
        assert_eq!(get(node.http, "/-/readyz").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_node_with_an_expired_certificate_is_not_ready_and_says_why() {
    let source = source();
    let mut cluster = Cluster::start(0, QUICK, &["--files", source.path().to_str().unwrap()]).await;
    let authority = Authority::new(cluster.folder());
    let mut first = cluster.node("n1");
    authority.certify(&mut first, 4000);
    first.restart().await;
    cluster.nodes.push(first);

    let mut late = cluster.node("n2");
    authority.certify(&mut late, 2001);
    late.start();
    until_it_says(&late, "this node's certificate has expired").await;
    drop(late);

    // And where it is the seed's that has.
    let mut seed = cluster.node("n3");
    authority.certify(&mut seed, 2001);
    seed.start();
    let mut fresh = cluster.node("n4");
    fresh.without_seeds();
    fresh.add_seeds(&[seed.port]);
    authority.certify(&mut fresh, 4000);
    fresh.start();
    until_it_says(&fresh, "its certificate has expired").await;

    // And where there is nobody who could say so.
    let mut first = cluster.node("n5");
    first.without_seeds();
    authority.certify(&mut first, 2001);
    first.start();
    eventually("it says so", || async {
        let said = first.status().await.unwrap_or_default()["waiting_for"].to_string();
        said.contains("they reject this node's: certificate expired")
    })
    .await;
    assert_eq!(first.status().await.unwrap()["converged"], false);
    let ready = get(first.http, "/-/readyz").await.unwrap();
    assert_eq!((ready.status.as_u16(), ready.text().contains("certificate expired")), (503, true), "{}", ready.text());
}

#[tokio::test]
async fn a_seed_whose_name_leads_nowhere_is_told_from_one_that_is_silent() {
    let source = source();
    let cluster = Cluster::start(0, QUICK, &["--files", source.path().to_str().unwrap()]).await;
    let mut node = cluster.node("n1");
    node.with("--seed", "no-such-host.invalid:1");
    node.start();
    until_it_says(&node, "cannot be resolved").await;
    drop(node);
    let mut node = cluster.node("n2");
    node.add_seeds(&[port()]);
    node.start();
    until_it_says(&node, "no answer").await;
}

#[tokio::test]
async fn a_lone_node_says_that_its_keys_lack_replicas_and_what_it_waits_for() {
    let source = source();
    let mut cluster = Cluster::start(2, QUICK, &["--files", source.path().to_str().unwrap()]).await;
    get(cluster.nodes[0].http, "/a").await.unwrap();
    cluster.until_held("a", 2).await;
    cluster.until_converged().await;
    cluster.nodes[1].kill9();
    let lone = &cluster.nodes[0];
    eventually("it says so, and has nothing left to do", || async {
        let Some(status) = lone.status().await else { return false };
        status["under_replicated"] == 1 && status["converged"] == true && status["members"] == 1
    })
    .await;
    let status = lone.status().await.unwrap();
    assert!(status["waiting_for"].to_string().contains("2 nodes should keep"), "{status}");
    let members: Value = serde_json::from_slice(&get(lone.http, "/-/members").await.unwrap().body).unwrap();
    let shown: Vec<_> =
        members.as_array().unwrap().iter().map(|member| (&member["state"], &member["accepting"])).collect();
    assert_eq!(shown, [(&"serving".into(), &true.into()), (&"dead".into(), &false.into())], "{members}");

    cluster.nodes[1].restart().await;
    cluster.until_converged().await;
    for node in &cluster.nodes {
        assert_eq!(node.status().await.unwrap()["waiting_for"], Value::Array(Vec::new()));
    }
}

/// An operator's own authority.
struct Authority {
    folder: std::path::PathBuf,
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new(folder: &Path) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(4000, 1, 1));
        let authority = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        Self { folder: folder.to_owned(), params, key }
    }

    /// Gives `node` a certificate that is good until the beginning of this year.
    fn certify(&self, node: &mut Serve, year: i32) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(vec![node.name.clone()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(year, 1, 1));
        let signed = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let file = |end: &str| self.folder.join(format!("{}.{end}", node.name));
        let (certificate, secret) = (file("pem"), file("key.pem"));
        std::fs::write(&certificate, signed.pem()).unwrap();
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        node.without("--cluster-key-file");
        for (option, path) in
            [("--tls-cert", certificate), ("--tls-key", secret), ("--tls-ca", self.folder.join("ca.pem"))]
        {
            node.with(option, path.to_str().unwrap());
        }
    }
}

#[tokio::test]
async fn members_that_all_have_no_weight_are_told_of_by_the_status_and_by_each_answer() {
    let source = source();
    let cluster =
        Cluster::start_with(1, &format!("{QUICK}weight = 0\n"), &["--files", source.path().to_str().unwrap()], |_| {})
            .await;
    let node = &cluster.nodes[0];
    let answer = get(node.http, "/a").await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("weight 0") && !answer.header("retry-after").is_empty(), "{}", answer.text());
    let status = node.status().await.unwrap();
    assert!(status["waiting_for"].to_string().contains("weight 0"), "{status}");
    assert!(node.ask(&["status"]).await.unwrap().contains("weight 0"));
}

#[tokio::test]
async fn a_node_with_another_kind_of_data_is_not_taken_in_and_moves_nothing() {
    let source = source();
    let cluster = Cluster::start(2, QUICK, &["--git", "http://127.0.0.1:9/{key}.git"]).await;
    let mut stranger = cluster.node("stranger");
    stranger.without("--git");
    stranger.with("--files", source.path().to_str().unwrap());
    stranger.start();
    assert_eq!(stranger.until_exit().await.code(), Some(1));
    let log = stranger.log();
    // It says so as soon as it has met one of them.
    assert!(log.contains("this node serves files, and n") && log.contains(" something else: "), "{log}");
    for node in &cluster.nodes {
        for key in ["org/a", "org/b", "org/c", "org/d"] {
            let owners = node.locate(key).await["owners"].to_string();
            assert!(owners.contains("n1") && owners.contains("n2") && !owners.contains("stranger"), "{owners}");
        }
    }

    let mut same = cluster.node("same");
    same.without("--git");
    same.with("--git", "http://127.0.0.1:10/{key}.git");
    same.start();
    same.until_ready().await;
}
