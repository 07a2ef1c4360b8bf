//! What to try with a cluster that has just started, with real names where they are known. To standard error: standard
//! output is for programs.

use std::path::Path;

use percent_encoding::utf8_percent_encode;

use super::{
    endpoint::{AT, IN_PATH},
    output,
    provider::Origin,
};

/// Entries that are looked at in search of an example, so that a huge folder does not delay the
/// command.
const ENTRIES_MAX: usize = 1_000;
const DEPTH_MAX: usize = 4;

/// Tells what to try at the node at `url`.
pub(super) fn show(origin: &Origin, url: &str) {
    output::complain(&text(origin, url));
}

fn text(origin: &Origin, url: &str) -> String {
    let (request, path) = match origin {
        Origin::Git { template } => {
            let repository = repository(template);
            (format!("git clone {url}/{repository}"), repository.to_owned())
        }
        Origin::Files { source, key_depth, .. } => {
            let file = example(Path::new(source));
            let path = file.unwrap_or_else(|| "PATH/OF/A/FILE".to_owned());
            let key = path.split('/').take(key_depth.unwrap_or(usize::MAX)).collect::<Vec<_>>().join("/");
            (format!("curl -i {url}/{}", utf8_percent_encode(&path, IN_PATH)), key)
        }
    };
    let at = if url == AT { String::new() } else { format!(" --at {url}") };
    let key = if path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._".contains(&b)) {
        path
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    };
    format!(
        "\nTry:\n  {request}\n  datad-gossip members{at}\n  datad-gossip locate {key}{at}\nCtrl-C stops the cluster."
    )
}

/// A repository that the template leads to.
fn repository(template: &str) -> &'static str {
    if template.contains("://{key}") {
        "github.com/octocat/Hello-World"
    } else if template.contains("://github.com/{key}") {
        "octocat/Hello-World"
    } else {
        "PATH/OF/A/REPOSITORY"
    }
}

/// The first plain file of a folder, the shallowest first, as a path below it.
fn example(folder: &Path) -> Option<String> {
    let mut level = vec![folder.to_owned()];
    let mut left = ENTRIES_MAX;
    for _ in 0..DEPTH_MAX {
        let mut below = Vec::new();
        for folder_here in level {
            let Ok(entries) = std::fs::read_dir(folder_here) else { continue };
            let mut entries: Vec<_> = entries.flatten().take(left).collect();
            left -= entries.len();
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let plain = entry.file_name().to_str().is_some_and(|name| !name.starts_with(['.', '-']));
                let Ok(kind) = entry.file_type() else { continue };
                if plain && kind.is_file() {
                    return entry.path().strip_prefix(folder).ok()?.to_str().map(str::to_owned);
                }
                if plain && kind.is_dir() {
                    below.push(entry.path());
                }
            }
        }
        level = below;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_file_is_named_ready_to_be_pasted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join(".hidden"), "").unwrap();
        std::fs::write(folder.path().join("sub/a file.txt"), "").unwrap();
        let source = folder.path().to_str().unwrap().to_owned();
        let shown = text(&Origin::Files { source, key_depth: None, hidden: false }, "http://127.0.0.1:8400");
        assert!(shown.contains("curl -i http://127.0.0.1:8400/sub/a%20file.txt\n"), "{shown}");
        assert!(shown.contains("datad-gossip locate 'sub/a file.txt'\n"), "{shown}");
    }

    #[test]
    fn with_a_key_depth_the_key_is_shorter_than_the_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/c"), "").unwrap();
        let source = folder.path().to_str().unwrap().to_owned();
        let shown = text(&Origin::Files { source, key_depth: Some(1), hidden: false }, "http://127.0.0.1:9000");
        assert!(shown.contains("/a/b/c\n") && shown.contains("locate a --at http://127.0.0.1:9000"), "{shown}");
    }

    #[test]
    fn a_repository_fits_the_template() {
        let shown = text(&Origin::Git { template: "https://{key}.git".into() }, "http://127.0.0.1:8400");
        assert!(shown.contains("git clone http://127.0.0.1:8400/github.com/octocat/Hello-World"), "{shown}");
    }
}
