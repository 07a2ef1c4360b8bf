//! The git client of a user, without anything of this machine's own settings.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long git may run. Longer than anything else may take: a busy disk alone may keep it from a hundred megabytes for minutes.
const GIT_MAX: Duration = Duration::from_secs(180);

/// Runs git in `dir`; what it printed, or what it complained about.
pub(crate) async fn git<A: AsRef<std::ffi::OsStr>>(
    dir: &Path,
    args: impl IntoIterator<Item = A>,
) -> Result<String, String> {
    let mut command = command(dir, args);
    let output = timeout(GIT_MAX, command.output()).await.map_err(|_| format!("git ran for {GIT_MAX:?}"))?;
    let output = output.map_err(|error| format!("git cannot be run: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn command<A: AsRef<std::ffi::OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new("git");
    command
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "A U Thor")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "author@example.com")))
        .kill_on_drop(true);
    command
}

/// A clone that a user made.
pub(crate) struct Checkout {
    pub(crate) path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Checkout {
    /// Clones `path`, such as `/some/repo`, through the node with this HTTP port.
    pub(crate) async fn clone(port: u16, path: &str, options: &[&str]) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://127.0.0.1:{port}{path}");
        let args = [&["clone", "--quiet"], options, &[url.as_str(), "checkout"]].concat();
        git(dir.path(), args).await?;
        Ok(Self { path: dir.path().join("checkout"), _dir: dir })
    }

    pub(crate) async fn git(&self, args: &[&str]) -> Result<String, String> {
        git(&self.path, args).await
    }

    /// The content of a file in it.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path.join(name)).unwrap()
    }
}

/// A clone that is being made; dropping it kills git.
pub(crate) struct Cloning {
    child: Child,
    dir: tempfile::TempDir,
}

impl Cloning {
    /// As [`Checkout::clone`], with `settings` for git itself.
    pub(crate) fn start(port: u16, path: &str, settings: &[&str], options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://127.0.0.1:{port}{path}");
        let args = [settings, &["clone", "--progress"], options, &[url.as_str(), "checkout"]].concat();
        let words = File::create(dir.path().join("words")).unwrap();
        let child = command(dir.path(), args).stdout(Stdio::null()).stderr(words).spawn().unwrap();
        Self { child, dir }
    }

    /// What git has said to its user so far.
    pub(crate) fn words(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("words")).unwrap()).into_owned()
    }

    /// Waits until it is done; what git said if it failed.
    pub(crate) async fn end(mut self) -> Result<Checkout, String> {
        let ended = timeout(GIT_MAX, self.child.wait()).await.map_err(|_| format!("git ran for {GIT_MAX:?}"))?;
        if !ended.unwrap().success() {
            return Err(self.words());
        }
        Ok(Checkout { path: self.dir.path().join("checkout"), _dir: self.dir })
    }
}
