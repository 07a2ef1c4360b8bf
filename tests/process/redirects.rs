//! An origin may say that something has moved, within its host. It cannot send a node, nor what the node shows to it,
//! anywhere else; and a key cannot send a node into a private network.

use super::harness::{Checkout, Cluster, QUICK, Upstream, get};

/// `me:secret`
const SENT: &str = "Basic bWU6c2VjcmV0";
const ADVERTISEMENT: &str = "info/refs?service=git-upload-pack";

async fn start(provider: &[&str], more: &str) -> Cluster {
    Cluster::start_with(1, &format!("{QUICK}{more}"), provider, |node| {
        node.with_variable("DATAD_ORIGIN_CREDENTIALS", "127.0.0.1 me secret");
    })
    .await
}

#[tokio::test]
async fn a_repository_that_was_renamed_is_found_at_its_new_place_with_the_password_of_its_host() {
    let upstream = Upstream::start().await;
    upstream.create("org/new", &[("file", b"content")]).await;
    upstream.set_authorization(SENT);
    // In two steps, one of which names the host.
    upstream.redirect("/git/org/old.git/info/refs", &format!("/git/org/older.git/{ADVERTISEMENT}"));
    upstream.redirect("/git/org/older.git/info/refs", &format!("{}/git/org/new.git/{ADVERTISEMENT}", upstream.url()));
    let cluster = start(&["--git", &upstream.git_template()], "").await;
    let clone = Checkout::clone(cluster.nodes[0].http, "/org/old", &[]).await.unwrap();
    assert_eq!(clone.read("file"), "content");
    upstream.commit("org/new", &[("file", b"changed")]).await;
    cluster.nodes[0].ask(&["update", "org/old", "--wait"]).await.unwrap();
    let clone = Checkout::clone(cluster.nodes[0].http, "/org/old", &[]).await.unwrap();
    assert_eq!(clone.read("file"), "changed");
}

#[tokio::test]
async fn git_is_sent_to_no_other_host_or_port_and_shows_nothing_there() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    other.create("org/repo", &[("file", b"of another host")]).await;
    let there = format!("{}/git/org/repo.git", other.url());
    upstream.redirect("/git/org/repo.git/info/refs", &format!("{there}/{ADVERTISEMENT}"));
    upstream.redirect("/git/org/loop.git/info/refs", &format!("/git/org/loop.git/{ADVERTISEMENT}"));
    upstream.redirect("/git/org/strange.git/info/refs", "/files/page");
    let cluster = start(&["--git", &upstream.git_template()], "").await;
    for key in ["org/repo", "org/loop", "org/strange"] {
        let answer = get(cluster.nodes[0].http, &format!("/{key}/{ADVERTISEMENT}")).await.unwrap();
        assert_eq!(answer.status, 502, "{key}: {}", answer.text());
        assert!(answer.text().contains("the origin redirects"), "{key}: {}", answer.text());
    }
    assert_eq!(other.requests(), 0);
    assert!(upstream.authorized() > 0);
}

#[tokio::test]
async fn a_file_is_had_from_where_its_host_says_that_it_is() {
    let upstream = Upstream::start().await;
    upstream.set_authorization(SENT);
    upstream.put_file("new", "content", "text/plain");
    upstream.redirect("/files/old", "/files/new");
    let cluster = start(&["--files", &upstream.files_url()], "").await;
    let answer = get(cluster.nodes[0].http, "/old").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "content"));
}

#[tokio::test]
async fn a_file_is_not_had_from_a_private_network_that_its_host_names_unless_that_is_allowed() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    other.put_file("secret", "internal", "text/plain");
    let port = other.url().rsplit_once(':').unwrap().1.to_owned();
    upstream.redirect("/files/address", &format!("{}/files/secret", other.url()));
    upstream.redirect("/files/name", &format!("http://localhost:{port}/files/secret"));
    let cluster = start(&["--files", &upstream.files_url()], "").await;
    for path in ["/address", "/name"] {
        let answer = get(cluster.nodes[0].http, path).await.unwrap();
        assert_eq!(answer.status, 502, "{path}: {}", answer.text());
    }
    assert_eq!(other.requests(), 0);

    let cluster = start(&["--files", &upstream.files_url()], "private_origins = true\n").await;
    for path in ["/address", "/name"] {
        assert_eq!(get(cluster.nodes[0].http, path).await.unwrap().text(), "internal", "{path}");
    }
    assert!(other.requests() > 0 && upstream.authorized() > 0);
    assert_eq!(other.authorized(), 0, "what is for one host is not shown to another");
}

#[tokio::test]
async fn a_key_names_no_host_in_a_private_network_and_learns_nothing_of_one() {
    let machine = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let closed = start(&["--git", "http://{key}.git"], "").await;
    for host in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "localhost", "localhost.", "x.localhost"] {
        let answer = get(closed.nodes[0].http, &format!("/{host}/org/repo/{ADVERTISEMENT}")).await.unwrap();
        assert_eq!(answer.status, 400, "{host}: {}", answer.text());
    }
    let open = start(&["--git", "http://{key}.git"], "private_origins = true\n").await;
    let path = format!("/{machine}/org/repo/{ADVERTISEMENT}");
    // Most machines resolve their own name, to an address of their own.
    let resolves = tokio::net::lookup_host((machine.as_str(), 80)).await.is_ok();
    let answers = [get(closed.nodes[0].http, &path).await.unwrap(), get(open.nodes[0].http, &path).await.unwrap()];
    let statuses = answers.each_ref().map(|answer| answer.status.as_u16());
    assert_eq!(statuses, if resolves { [403, 502] } else { [502, 502] }, "{answers:?}");
    for answer in &answers {
        for word in ["refused", "connect to", "127.0.", "unable to access"] {
            assert!(!answer.text().contains(word), "{word}: {}", answer.text());
        }
    }
    assert!(open.nodes[0].log().contains("unable to access"), "the operator is told");
}
