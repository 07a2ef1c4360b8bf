//! What clients are served, and which of them are turned away.

use super::*;

#[tokio::test]
async fn clients_clone_shallow_partial_and_whole() {
    let lab = Lab::new().await;
    lab.commit("two").await;
    lab.push("trunk").await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let front = Front::new(Arc::clone(&provider)).await;
    let head = lab.head(&lab.path("up/org/repo")).await;
    for (name, url, option) in [
        ("whole", front.url("org/repo"), "--quiet"),
        ("shallow", front.url("org/repo.git"), "--depth=1"),
        ("partial", front.url("org/repo"), "--filter=blob:none"),
        ("old", front.url("org/repo"), "-cprotocol.version=0"),
    ] {
        let url = url.as_str();
        lab.git(&["clone", "-q", option, url, name]).await;
        assert_eq!(lab.head(&lab.path(name).join(".git")).await, head);
        assert_eq!(fs::read_to_string(lab.path(name).join("file")).unwrap(), "two");
    }
    assert_eq!(lab.git(&["-C", "shallow", "rev-list", "--count", "HEAD"]).await, "1");
    assert_eq!(lab.git(&["-C", "partial", "show", "HEAD~:file"]).await, "one");
    let (pushed, output) = lab.run(&["-C", "whole", "push", "-q", "origin", "HEAD:refs/heads/new"]).await;
    assert!(!pushed && output.contains("403"), "{output}");
}

#[tokio::test]
async fn clients_that_hold_all_turns_keep_no_node_from_copying_and_are_told_of_by_the_next() {
    let lab = Lab::new().await;
    let mut config = GitConfig::new(lab.template(), lab.path("a"));
    config.serving_max = 2;
    let provider = Arc::new(Git::open(config).unwrap());
    let key = key("org/repo");
    provider.update(&key, alone()).await.unwrap();
    let head = || request(Method::GET, "/org/repo/info/refs?service=git-upload-pack");
    // A response that is not read to its end holds its turn.
    let held = provider.serve(&key, head()).await.unwrap();
    assert_eq!(provider.export(&key, head()).await.unwrap().status(), StatusCode::OK);
    assert!(matches!(provider.serve(&key, head()).await, Err(ServeError::Overloaded { .. })));
    drop(held);
    assert_eq!(provider.serve(&key, head()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn long_requests_come_compressed_or_in_chunks() {
    let lab = Lab::new().await;
    // Each of these branches is one line in the request of a clone, which makes more than git's smallest buffer.
    let branch = |number| format!("commit refs/heads/b{number}\ncommitter n <e@x> {number} +0000\ndata 0\n\n");
    fs::write(lab.path("import"), (1..=1500).map(branch).collect::<String>()).unwrap();
    let input = fs::File::open(lab.path("import")).unwrap();
    let mut command = tokio::process::Command::new("git");
    command.args(["fast-import", "--quiet"]).current_dir(lab.path("up/org/repo")).stdin(input);
    assert!(command.status().await.unwrap().success());
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let front = Front::new(provider).await;
    lab.git(&["clone", "-q", "--mirror", &front.url("org/repo"), "gzip"]).await;
    let came = |name| front.headers.lock().unwrap().contains(name);
    assert!(came("content-encoding") && !came("transfer-encoding"));
    lab.git(&["clone", "-q", "-chttp.postBuffer=65536", "--mirror", &front.url("org/repo"), "chunked"]).await;
    assert!(came("transfer-encoding"));
    for name in ["gzip", "chunked"] {
        let refs = lab.git(&["--git-dir", name, "for-each-ref", "--format=x"]).await;
        assert_eq!(refs.lines().count(), 1501);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_turn() {
    let lab = Lab::new().await;
    let template = format!("file://{}/{{key}}", lab.path("up").display());
    let mut config = GitConfig::new(template, lab.path("a"));
    config.serving_max = 1;
    let provider = Git::open(config).unwrap();
    provider.update(&key("org/repo"), alone()).await.unwrap();
    for _ in 0..3 {
        let asked = request(Method::GET, "/org/repo/info/refs?service=git-upload-pack");
        let response = provider.serve(&key("org/repo"), asked).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-git-upload-pack-advertisement");
    }
    let repo = key("org/none");
    assert!(matches!(provider.serve(&repo, request(Method::GET, "/x")).await, Err(ServeError::NotHeld)));
}

#[tokio::test]
async fn only_fetches_are_repeated_elsewhere() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    let idempotent = |method, uri| provider.is_idempotent(&request(method, uri).into_parts().0);
    assert!(idempotent(Method::GET, "/a/info/refs"));
    assert!(idempotent(Method::POST, "/a/git-upload-pack"));
    assert!(!idempotent(Method::POST, "/a/git-receive-pack"));
}
