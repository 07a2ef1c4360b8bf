//! Mirrors are made, refreshed, and equal to what they mirror.

use super::*;

#[tokio::test]
async fn a_cold_repository_is_mirrored_whole_and_found_after_a_restart() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    assert!(!provider.has(&key("org/repo")).await.unwrap());
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    assert_eq!(fs::read_to_string(slot.join("HEAD")).unwrap().trim(), "ref: refs/heads/trunk");
    assert!(!fs::read_to_string(slot.join("config")).unwrap().contains("url"));
    drop(provider);
    let provider = lab.provider("a");
    assert!(provider.has(&key("org/repo")).await.unwrap());
    assert_eq!(provider.keys().try_collect::<Vec<_>>().await.unwrap(), [key("org/repo")]);
    provider.remove(&key("org/repo")).await.unwrap();
    provider.remove(&key("org/repo")).await.unwrap();
    assert!(!provider.has(&key("org/repo")).await.unwrap());
    assert_eq!((provider.keys().count().await, lab.leftovers("a")), (0, 0));
}

#[tokio::test]
async fn many_new_references_of_a_refresh_are_kept_in_one_file() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let head = lab.head(&lab.path("up/org/repo")).await;
    let creates = (0..300).map(|number| format!("create refs/heads/n{number} {head}\n")).collect::<String>();
    fs::write(lab.path("creates"), creates).unwrap();
    let mut command = tokio::process::Command::new("git");
    command.args(["update-ref", "--stdin"]).current_dir(lab.path("up/org/repo"));
    assert!(command.stdin(fs::File::open(lab.path("creates")).unwrap()).status().await.unwrap().success());
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    assert!(fs::read_to_string(slot.join("packed-refs")).unwrap().contains("refs/heads/n299"));
    assert_eq!(fs::read_dir(slot.join("refs/heads")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_update_brings_what_is_new_and_drops_what_is_gone() {
    let lab = Lab::new().await;
    lab.push("trunk:refs/heads/topic").await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    lab.commit("two").await;
    lab.push("trunk:refs/heads/main").await;
    // A branch that becomes a directory of branches cannot change in one transaction.
    lab.push(":refs/heads/topic").await;
    lab.push("trunk:refs/heads/topic/sub").await;
    lab.git(&["-C", "up/org/repo", "symbolic-ref", "HEAD", "refs/heads/main"]).await;
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    assert_eq!(fs::read_to_string(slot.join("HEAD")).unwrap().trim(), "ref: refs/heads/main");
}

#[tokio::test]
async fn odd_heads_of_an_upstream_are_mirrored_once() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    let changed = async || {
        let context = alone();
        provider.update(&key("org/repo"), context.clone()).await.unwrap();
        context.changed().unwrap()
    };
    assert!(changed().await);
    lab.git(&["-C", "up/org/repo", "symbolic-ref", "refs/heads/alias", "refs/heads/trunk"]).await;
    assert!(changed().await, "there is a reference more");
    assert!(!changed().await, "a symbolic reference is as good as what it comes to");
    let tree = lab.git(&["-C", "up/org/repo", "rev-parse", "HEAD^{tree}"]).await;
    let lone = lab.git(&["-C", "up/org/repo", "commit-tree", "-m", "lone", &tree]).await;
    lab.git(&["-C", "up/org/repo", "update-ref", "--no-deref", "HEAD", &lone]).await;
    assert!(changed().await, "HEAD is elsewhere");
    assert!(!changed().await, "a commit that only HEAD leads to is mirrored too");
    lab.provider("b").update(&key("org/repo"), alone()).await.unwrap();
    let fresh = lab.provider("c");
    fresh.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&fresh, "org/repo").await);
    lab.git(&["-C", "up/org/repo", "symbolic-ref", "HEAD", "refs/heads/alias"]).await;
    assert!(changed().await && !changed().await);
}

#[tokio::test]
async fn many_updates_do_not_pile_up_packs() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    let pack = fs::read_dir(slot.join("objects/pack"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "pack"));
    let pack = pack.expect("a clone leaves a pack");
    for number in 0..30 {
        for end in ["pack", "idx"] {
            let copy = slot.join(format!("objects/pack/pack-{number:040}.{end}"));
            fs::copy(pack.with_extension(end), copy).unwrap();
        }
    }
    lab.commit("two").await;
    lab.push("trunk").await;
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let packs = fs::read_dir(slot.join("objects/pack")).unwrap();
    assert!(packs.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "pack")).count() < 24);
}

#[tokio::test]
async fn a_repository_over_http_is_asked_for_once() {
    let lab = Lab::new().await;
    let upstream = lab.provider("upstream");
    upstream.update(&key("org/repo"), alone()).await.unwrap();
    let front = Front::new(upstream).await;
    let provider = lab.provider_of("a", &format!("http://user:secret@{}/{{key}}.git", front.address));
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert_eq!(front.advertised.load(Ordering::Relaxed), 1);
    assert!(lab.same_references(&provider, "org/repo").await);
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert_eq!(front.advertised.load(Ordering::Relaxed), 2);
    let outcome = provider.update(&key("org/none"), alone()).await;
    assert!(matches!(outcome, Err(UpdateError::NotFound)), "{outcome:?}");
    assert!(!provider.has(&key("org/none")).await.unwrap());
}

#[tokio::test]
async fn an_empty_repository_is_a_repository() {
    let lab = Lab::new().await;
    lab.git(&["init", "-q", "--bare", "-b", "odd", "up/empty"]).await;
    let provider = lab.provider("a");
    for expected in [true, false] {
        let context = alone();
        provider.update(&key("empty"), context.clone()).await.unwrap();
        assert_eq!(context.changed(), Some(expected));
    }
    let front = Front::new(Arc::clone(&provider)).await;
    lab.git(&["clone", "-q", &front.url("empty"), "clone"]).await;
    assert_eq!(lab.git(&["-C", "clone", "symbolic-ref", "HEAD"]).await, "refs/heads/odd");
}
