//! Origins that are down, refuse or never end; mirrors that are spoilt; updates that are dropped.

use super::*;

#[tokio::test]
async fn what_is_missing_is_not_found_and_what_is_down_is_unavailable() {
    let lab = Lab::new().await;
    let outcome = lab.provider("a").update(&key("no/such"), alone()).await;
    assert!(matches!(outcome, Err(UpdateError::NotFound)), "{outcome:?}");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let provider = lab.provider_of("b", &format!("http://{closed}/{{key}}.git"));
    let outcome = provider.update(&key("org/repo"), alone()).await;
    assert!(matches!(outcome, Err(UpdateError::Unavailable(_))), "{outcome:?}");
    assert_eq!(provider.keys().count().await, 0);
    eventually("nothing is left", || lab.leftovers("a") + lab.leftovers("b") == 0).await;
}

#[tokio::test]
async fn keys_that_may_not_be_fetched_are_forbidden_before_git_runs() {
    let lab = Lab::new().await;
    let template = format!("file://{}/{{key}}", lab.path("up").display());
    let mut config = GitConfig::new(template, lab.path("a"));
    config.allow = AllowList::new(["org/*"]);
    let provider = Git::open(config).unwrap();
    for name in ["other/repo", "a b", "x.git/y", "$(id)", "org/a;b"] {
        let outcome = provider.update(&key(name), alone()).await;
        assert!(matches!(outcome, Err(UpdateError::Forbidden(_))), "{name}: {outcome:?}");
    }
    provider.update(&key("org/repo"), alone()).await.unwrap();
}

#[tokio::test]
async fn a_spoilt_mirror_is_made_anew_and_locks_of_a_killed_git_do_not_matter() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    fs::write(slot.join("packed-refs.lock"), "").unwrap();
    fs::write(slot.join("refs/heads/trunk.lock"), "").unwrap();
    lab.commit("two").await;
    lab.push("trunk").await;
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    fs::remove_dir_all(slot.join("objects")).unwrap();
    let asked = provider.serve(&key("org/repo"), request(Method::GET, "/info/refs?service=git-upload-pack")).await;
    assert!(matches!(asked, Err(ServeError::Failed(_))));
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
}

#[tokio::test]
async fn a_dropped_update_leaves_nothing_and_kills_what_it_started() {
    let lab = Lab::new().await;
    // An origin that accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = lab.provider_of("a", &format!("http://{}/{{key}}.git", silent.local_addr().unwrap()));
    let updated = key("org/repo");
    let mut update = Box::pin(provider.update(&updated, alone()));
    let connection = tokio::select! {
        outcome = &mut update => panic!("{outcome:?}"),
        connection = silent.accept() => connection.unwrap().0,
    };
    let marker = lab.path("a").display().to_string();
    let running = children_of(&marker);
    assert!(!running.is_empty());
    drop(update);
    let alive = |id: &i32| test_kill_process(Pid::from_raw(*id).unwrap()).is_ok() && is_running(*id);
    eventually("all processes are gone", || !running.iter().any(alive)).await;
    eventually("nothing is left", || lab.leftovers("a") == 0).await;
    assert!(!provider.has(&updated).await.unwrap());
    drop(connection);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_references_without_an_end_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let template = format!("http://{}/{{key}}", listener.local_addr().unwrap());
    let _server = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(endless_references(listener)));
    let lab = Lab::new().await;
    let provider = lab.provider_of("data", &template);
    let ended = tokio::time::timeout(Duration::from_secs(50), provider.update(&key("org/repo"), alone())).await;
    let error = ended.expect("it is given up").unwrap_err();
    assert!(matches!(&error, UpdateError::Unavailable(why) if why.contains("no end")), "{error:?}");
    let marker = lab.path("data").display().to_string();
    let runs = || children_of(&marker).into_iter().any(is_running);
    eventually("nothing is left", || lab.leftovers("data") == 0 && !runs()).await;
}

#[tokio::test]
async fn whether_the_origin_has_a_repository_is_seen_without_fetching_it() {
    let lab = Lab::new().await;
    let git = lab.provider("a");
    let there = |name: &'static str| {
        let git = git.clone();
        async move { git.is_at_origin(&key(name)).await }
    };
    assert!(matches!(there("org/repo").await, Ok(Some(true))));
    assert!(matches!(there("org/other").await, Ok(Some(false))));
    lab.git(&["init", "-q", "--bare", "up/org/empty"]).await;
    assert!(matches!(there("org/empty").await, Ok(Some(false))), "there is nothing to fetch again");
    assert_eq!(git.keys().count().await, 0);
    let (address, unreachable) = (free_address().await, "org/repo");
    let git = lab.provider_of("b", &format!("http://{address}/{{key}}"));
    assert!(matches!(git.is_at_origin(&key(unreachable)).await, Err(UpdateError::Unavailable(_))));
}

/// The processes whose environment mentions `marker`.
fn children_of(marker: &str) -> Vec<i32> {
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let mentions = |id: &i32| {
        fs::read(format!("/proc/{id}/environ")).is_ok_and(|text| String::from_utf8_lossy(&text).contains(marker))
    };
    ids.filter(mentions).collect()
}

/// Whether a process is more than a zombie.
fn is_running(id: i32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Answers every request with a list of references that has no end.
async fn endless_references(listener: TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let packet = |line: &str| format!("{:04x}{line}", line.len() + 4);
    let id = "0123456789012345678901234567890123456789";
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.read(&mut [0; 4096]).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-advertisement\r\n\r\n";
        let service = packet("# service=git-upload-pack\n");
        let first = packet(&format!("{id} HEAD\0multi_ack\n"));
        let mut sent = stream.write_all(format!("{head}{service}0000{first}").as_bytes()).await;
        let mut number = 0;
        while sent.is_ok() {
            let references = (number..number + 5_000).map(|number| packet(&format!("{id} refs/heads/{number:0200}\n")));
            sent = stream.write_all(references.collect::<String>().as_bytes()).await;
            number += 5_000;
        }
    }
}

/// An address of this machine at which nothing listens.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
