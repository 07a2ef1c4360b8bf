//! Mirrors are copied between nodes.

use super::*;

/// So many branches that a clone, which names the commit of each in 50 bytes, asks for more than 10 MiB.
const MANY: usize = 215_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_of_very_many_references_is_copied_to_another_node() {
    let lab = Lab::new().await;
    lab.git(&["init", "-q", "--bare", "-b", "b1", "up/many"]).await;
    let commit =
        |number| format!("commit refs/heads/all\nmark :{number}\ncommitter n <e@x> {number} +0000\ndata 0\n\n");
    fs::write(lab.path("import"), (1..=MANY).map(commit).collect::<String>()).unwrap();
    let mut command = tokio::process::Command::new("git");
    command.args(["fast-import", "--quiet", "--export-marks=marks"]).current_dir(lab.path("up/many"));
    assert!(command.stdin(fs::File::open(lab.path("import")).unwrap()).status().await.unwrap().success());
    let marks = fs::read_to_string(lab.path("up/many/marks")).unwrap();
    let branch = |line: &str| line[1..].split_once(' ').map(|(mark, id)| format!("{id} refs/heads/b{mark}\n"));
    let mut packed: Vec<String> = marks.lines().filter_map(branch).collect();
    packed.sort_by(|one, other| one[41..].trim_end().cmp(other[41..].trim_end()));
    let packed = format!("# pack-refs with: peeled fully-peeled sorted \n{}", packed.concat());
    fs::write(lab.path("up/many/packed-refs"), packed).unwrap();

    let holder = lab.provider("holder");
    holder.update(&key("many"), alone()).await.unwrap();
    let peers = Peers::new([("n1", Arc::clone(&holder) as Arc<dyn Provider>)]);
    let copy = lab.provider("copy");
    copy.update(&key("many"), with_peers(&["n1"], &peers)).await.unwrap();
    assert!(lab.same_references(&copy, "many").await);
}

#[tokio::test]
async fn a_peer_is_copied_from_and_a_broken_one_passed_over() {
    let lab = Lab::new().await;
    let holder = lab.provider("holder");
    holder.update(&key("org/repo"), alone()).await.unwrap();
    let empty = lab.provider("empty");
    let peers = Peers::new([("n1", empty as Arc<dyn Provider>), ("n2", Arc::clone(&holder) as Arc<dyn Provider>)]);
    let provider = lab.provider_of("a", "http://127.0.0.1:1/{key}.git");
    provider.update(&key("org/repo"), with_peers(&["gone", "n1", "n2"], &peers)).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let described = async |provider: &Git| provider.describe(&key("org/repo")).await.unwrap();
    let before = described(&holder).await;
    assert!(before.bytes.unwrap() > 0 && before.updated_ms.is_some());
    assert_eq!(described(&provider).await.version, before.version, "the same data");
    lab.commit("two").await;
    lab.push("trunk").await;
    holder.update(&key("org/repo"), alone()).await.unwrap();
    let after = described(&holder).await;
    assert!(after.version != before.version && after.updated_ms >= before.updated_ms);
    assert!(holder.describe(&key("org/none")).await.is_err());
    for expected in [true, false] {
        let context = with_peers(&["n2"], &peers);
        provider.update(&key("org/repo"), context.clone()).await.unwrap();
        assert_eq!(context.changed(), Some(expected));
    }
    assert!(lab.same_references(&provider, "org/repo").await);
    let outcome = provider.update(&key("org/none"), with_peers(&["n1", "n2"], &peers)).await;
    assert!(matches!(outcome, Err(UpdateError::Unavailable(_))), "{outcome:?}");
}
