//! What became unreachable goes, in time and never under a reader.

use super::*;

#[tokio::test]
async fn what_is_unreachable_goes_two_weeks_after_it_was_found_and_not_by_the_age_of_its_pack() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    let repo = key("org/repo");
    provider.update(&repo, alone()).await.unwrap();
    let slot = provider.mirrors.shelf.slot(&repo);
    let path = slot.to_str().unwrap();
    let has = async |id: &str| lab.run(&["--git-dir", path, "cat-file", "-e", id]).await.0;
    // A pack of years ago.
    age(&slot, DAY * 1000);
    let old = force_push(&lab, &provider, "two").await;
    assert!(slot.join("datad-dropped").exists());
    age(&slot, DAY * 2);
    provider.update(&repo, alone()).await.unwrap();
    assert!(has(&old).await && !slot.join("datad-dropped").exists(), "it is found");
    assert!(walk(&slot).iter().any(|file| file.extension().is_some_and(|end| end == "mtimes")));
    provider.update(&repo, alone()).await.unwrap();
    assert!(has(&old).await, "it is there for two weeks more");
    let newer = force_push(&lab, &provider, "three").await;
    age(&slot, DAY * 2);
    provider.update(&repo, alone()).await.unwrap();
    assert!(has(&old).await && has(&newer).await);
    assert!(lab.same_references(&provider, "org/repo").await && lab.head(&slot).await != newer);
    assert!(lab.same_references(&provider, "org/repo").await);
}

#[tokio::test]
async fn what_is_unreachable_goes_when_nobody_reads_the_mirror() {
    let lab = Lab::new().await;
    let mut config = GitConfig::new(lab.template(), lab.path("a"));
    config.unreachable_kept = Duration::ZERO;
    let provider = Arc::new(Git::open(config).unwrap());
    let repo = key("org/repo");
    provider.update(&repo, alone()).await.unwrap();
    let slot = provider.mirrors.shelf.slot(&repo);
    let path = slot.to_str().unwrap();
    let has = async |id: &str| lab.run(&["--git-dir", path, "cat-file", "-e", id]).await.0;
    // A response that is not read to its end is one that is being read.
    let asked = request(Method::GET, "/org/repo/info/refs?service=git-upload-pack");
    let reading = provider.serve(&repo, asked).await.unwrap();
    let old = force_push(&lab, &provider, "two").await;
    assert!(has(&old).await, "somebody may be in the middle of it");
    drop(reading);
    tokio::time::sleep(Duration::from_secs(1)).await;
    provider.update(&repo, alone()).await.unwrap();
    assert!(!has(&old).await, "nothing leads to it");
    assert!(lab.same_references(&provider, "org/repo").await);
    let front = Front::new(Arc::clone(&provider)).await;
    lab.git(&["clone", "-q", &front.url("org/repo"), "clone"]).await;
    assert_eq!(fs::read_to_string(lab.path("clone/file")).unwrap(), "two");
}

/// Changes the only commit of the upstream, and mirrors that; the commit before is the result.
async fn force_push(lab: &Lab, provider: &Git, text: &str) -> String {
    let old = lab.head(&lab.path("up/org/repo")).await;
    fs::write(lab.path("work/file"), text).unwrap();
    lab.git(&["-C", "work", "commit", "-q", "-a", "--amend", "-m", text]).await;
    lab.push("+trunk").await;
    provider.update(&key("org/repo"), alone()).await.unwrap();
    old
}

/// Makes what the mirror remembers look as if that had been so long ago.
fn age(slot: &Path, by: Duration) {
    for file in walk(slot) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "datad-dropped" || file.parent().unwrap().ends_with("objects/pack") {
            let file = fs::File::open(&file).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - by).unwrap();
        }
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
