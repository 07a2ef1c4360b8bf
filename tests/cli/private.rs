//! Files that are nobody else's business: secrets, settings, and what is hidden among the data.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{Dev, access::Node, folder_with, get, program, run, text};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_key_is_made_for_its_owner_alone_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cluster.key");
    let make = || run(&["keygen", "--out", path.to_str().unwrap()]);
    assert_eq!(make().status.code(), Some(0));
    let key = fs::read_to_string(&path).unwrap();
    assert_eq!((mode(&path), key.trim().len()), (0o600, 64));
    let again = make();
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("cluster.key"), "{}", text(&again.stderr));
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
}

#[test]
fn a_secret_that_others_can_read_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf {
        let path = folder.path().join(name);
        let made = run(&["keygen", "--out", path.to_str().unwrap()]);
        assert!(made.status.success());
        path
    };
    let (key, open) = (file("cluster.key"), file("open"));
    fs::set_permissions(&open, fs::Permissions::from_mode(0o640)).unwrap();
    let key = ["--cluster-key-file", key.to_str().unwrap()];
    let open = open.to_str().unwrap();
    for options in [
        &["--cluster-key-file", open][..],
        &["--tls-cert", open, "--tls-key", open, "--tls-ca", open],
        &[&key[..], &["--admin-token-file", open]].concat(),
        #[cfg(feature = "etcd")]
        &[&key[..], &["--etcd", "http://127.0.0.1:1", "--etcd-user", "u", "--etcd-password-file", open]].concat(),
        #[cfg(feature = "etcd")]
        &[&key[..], &["--etcd", "https://127.0.0.1:1", "--etcd-cert", open, "--etcd-key", open]].concat(),
    ] {
        let mut refused = program(&["serve", "--name", "n1", "--files", ".", "--http", "127.0.0.1:0"]);
        let refused = refused.arg("--data").arg(folder.path().join("data")).args(options).output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{options:?}: {}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains(&format!("chmod 600 {open}")), "{options:?}: {}", text(&refused.stderr));
    }
    let refused = run(&["pin", "a", "--at", "http://127.0.0.1:1", "--admin-token-file", open]);
    assert!(text(&refused.stderr).contains(&format!("chmod 600 {open}")), "{}", text(&refused.stderr));
}

#[test]
fn what_is_hidden_among_the_files_is_not_served_unless_it_is_asked_for() {
    let files = folder_with("plain", "plain");
    for folder in [".git", "site/.cache"] {
        fs::create_dir_all(files.path().join(folder)).unwrap();
    }
    let hidden = [".env", ".git/config", "site/.htpasswd", "site/.cache/x"];
    for path in hidden {
        fs::write(files.path().join(path), "hidden").unwrap();
    }
    fs::write(files.path().join("site/index"), "index").unwrap();
    let dev = Dev::start(1, files.path());
    let deep = Node::start(files.path(), &["--key-depth", "1"]);
    let open = Node::start(files.path(), &["--files-hidden"]);
    for path in hidden {
        for url in [dev.url(), &deep.url] {
            let answer = get(url, &format!("/{path}"));
            assert!(answer.starts_with("HTTP/1.1 404") && !answer.ends_with("hidden"), "{path}: {answer}");
        }
        assert!(get(&open.url, &format!("/{path}")).ends_with("hidden"), "{path}");
    }
    for url in [dev.url(), &deep.url, &open.url] {
        assert!(get(url, "/plain").ends_with("plain") && get(url, "/site/index").ends_with("index"));
    }
}

#[test]
fn a_second_dev_leaves_the_folder_of_one_that_runs_alone() {
    let (files, data) = (folder_with("a", "content"), tempfile::tempdir().unwrap());
    let dev = Dev::start_with(1, files.path(), &[("DATAD_DATA", data.path())]);
    let key = fs::read(data.path().join("cluster.key")).unwrap();
    let mut second = program(&["dev", "--nodes", "1", "--http", "127.0.0.1:0", "--files"]);
    let second = second.arg(files.path()).arg("--data").arg(data.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("in use by another process"), "{}", text(&second.stderr));
    assert_eq!(fs::read(data.path().join("cluster.key")).unwrap(), key);
    assert!(get(dev.url(), "/a").ends_with("content"));
}
