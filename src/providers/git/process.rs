//! Running the system's git: with nothing of this process's environment, and never outliving the
//! caller that started it.
//!
//! git starts programs of its own (`git-remote-https`, `index-pack`, `upload-pack`), so each run is a process group, and
//! dropping a [`Group`] kills all of it. A process that is killed drops nothing; then a [`Supervisor`], if there is one,
//! sees that it is gone, and does it instead. Settings come from one file that is written at start; the system's and the
//! user's are not read, prompts and credential helpers are off, and only the protocol of the remote is allowed. What a
//! run writes is read to its end but kept only in part.

use std::{
    ffi::{OsStr, OsString},
    io::{self, PipeReader, PipeWriter},
    net::IpAddr,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process_group},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};
use url::Url;

use super::{
    limits,
    template::{Remote, Scheme},
};
use crate::{
    provider::{UpdateError, is_shortage},
    providers::credentials::basic,
};

/// How much of a run's standard output is kept, from its beginning.
const STDOUT_BYTES_KEPT: usize = 8 << 10;
/// How git says of a reference that it was dropped, or led back.
const DROPPED: [&str; 2] = ["(forced update)", "[deleted]"];
/// Longest line that is looked at as a whole: longer than the name of any reference.
const LINE_BYTES_MAX: usize = 128 << 10;
/// How much of a run's standard error is kept, from its end.
pub(crate) const STDERR_BYTES_KEPT: usize = 16 << 10;

/// What git may know of the environment: how to find programs, certificates and proxies.
const PASSED_ON: &[&str] = &["PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_EXEC_PATH"];
const PROXIES: &[&str] =
    &["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// The system's git and the settings it runs with.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    program: PathBuf,
    supervisor: Option<Arc<Supervisor>>,
    settings: PathBuf,
    home: PathBuf,
}

impl Program {
    /// Writes the settings below `root`. Blocks.
    pub(crate) fn new(program: PathBuf, supervisor: Option<PathBuf>, root: &Path, stall: Duration) -> io::Result<Self> {
        let (settings, home) = (root.join("gitconfig"), root.join("home"));
        std::fs::create_dir_all(&home)?;
        std::fs::write(&settings, settings_text(stall))?;
        let supervisor = supervisor.map(Supervisor::new).transpose()?.map(Arc::new);
        Ok(Self { program, supervisor, settings, home })
    }

    /// A run of `git` with `args`, that may speak only `scheme`.
    pub(crate) fn command<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        scheme: Option<Scheme>,
    ) -> Command {
        let mut command = match &self.supervisor {
            Some(supervisor) => supervisor.command(&self.program),
            None => Command::new(&self.program),
        };
        let passed_on = PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let protocols = match scheme {
            Some(Scheme::Http | Scheme::Https) => "http:https",
            Some(Scheme::File) => "file",
            None => "none",
        };
        command
            .args(args)
            .env_clear()
            .envs(passed_on)
            .env("LC_ALL", "C")
            .env("HOME", &self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &self.settings)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", protocols)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// A run that talks to `remote`; credentials travel in the environment, where other users cannot read them.
    pub(crate) fn to_remote<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, remote: &Remote) -> Command {
        let mut command = self.command(args, Some(remote.scheme));
        if remote.proxied {
            command.envs(PROXIES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        }
        let mut settings = Vec::new();
        if let Some(authorization) = &remote.authorization {
            let value = OsStr::from_bytes(authorization.as_bytes());
            let header = [OsStr::new("Authorization: "), value].join(OsStr::new(""));
            settings.push((format!("http.{}.extraHeader", remote.origin), header));
        }
        if let Ok(url) = Url::parse(&remote.origin)
            && let (Some(host), false) = (url.host_str(), remote.addresses.is_empty())
        {
            let port = url.port_or_known_default().unwrap_or_default();
            let addresses = remote.addresses.iter().map(|address| match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            });
            let pinned = format!("{host}:{port}:{}", addresses.collect::<Vec<_>>().join(","));
            settings.push(("http.curloptResolve".to_owned(), pinned.into()));
        }
        configure(&mut command, settings);
        command
    }

    /// What the credential helper `helper` shows to the host of `url`.
    ///
    /// # Errors
    /// It shows nothing.
    pub(crate) async fn credential(&self, helper: &str, url: &Url) -> Result<HeaderValue, UpdateError> {
        let mut command = self.command(["credential", "fill"], None);
        // A helper may be a piece of shell with a secret in it.
        configure(&mut command, vec![("credential.helper".to_owned(), helper.into())]);
        let (host, port) = (url.host_str().unwrap_or_default(), url.port().map(|port| format!(":{port}")));
        let port = port.unwrap_or_default();
        let question = format!("protocol={}\nhost={host}{port}\n\n", url.scheme());
        let outcome = ask(&mut command, question.as_bytes(), STDOUT_BYTES_KEPT).await?;
        let said = |name: &str| outcome.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let header = said("password").map(|password| basic(said("username").unwrap_or_default(), password));
        match header {
            Some(Ok(header)) if outcome.success => Ok(header),
            _ => Err(UpdateError::Unavailable(format!("the credential helper has nothing for {host}"))),
        }
    }
}

/// A program between this process and git, which ends git when this process is gone. See the `child` command.
#[derive(Debug)]
struct Supervisor {
    program: PathBuf,
    /// Passed on to every child. It ends when the last writing end is closed, and only this process has one.
    lifeline: PipeReader,
    _held: PipeWriter,
}

impl Supervisor {
    fn new(program: PathBuf) -> io::Result<Self> {
        let (lifeline, held) = io::pipe()?;
        fcntl_setfd(&lifeline, FdFlags::empty())?;
        Ok(Self { program, lifeline, _held: held })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0("datad-gossip").arg("child").arg(self.lifeline.as_raw_fd().to_string()).arg("--").arg(program);
        command
    }
}

/// Settings for one run, by the environment.
fn configure(command: &mut Command, settings: Vec<(String, OsString)>) {
    command.env("GIT_CONFIG_COUNT", settings.len().to_string());
    for (number, (name, value)) in settings.into_iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{number}"), name).env(format!("GIT_CONFIG_VALUE_{number}"), value);
    }
}

fn settings_text(stall: Duration) -> String {
    let seconds = stall.as_secs().max(1);
    // Mirrors carry the objects that the origin has: objects are hashed and checked for
    // completeness as they arrive, but not held to fsck's taste (transfer.fsckObjects), which many
    // well-known repositories offend.
    format!(
        "# Written at every start; changes are lost.\n\
         [core]\n\tfsync = all\n\tfsyncMethod = fsync\n\thooksPath = /dev/null\n\
         [safe]\n\tdirectory = *\n\
         [init]\n\tdefaultBranch = main\n\
         [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n\
         [fetch]\n\tunpackLimit = 1\n\tfsckObjects = false\n\
         [transfer]\n\tfsckObjects = false\n\tbundleURI = false\n\
         [uploadpack]\n\tallowFilter = true\n\tallowAnySHA1InWant = true\n\
         [credential]\n\thelper =\n\
         [protocol]\n\tallow = never\n[protocol \"ext\"]\n\tallow = never\n\
         [http]\n\tfollowRedirects = false\n\treceivepack = false\n\tlowSpeedLimit = 1\n\tlowSpeedTime = {seconds}\n"
    )
}

/// A process and all it started. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) child: Child,
    id: Option<Pid>,
}

impl Group {
    /// Starts `command`, which [`Program`] made.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            limits::limit(id);
        }
        Ok(Self { child, id })
    }

    /// Waits for the process to end.
    ///
    /// Cancel-safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        // Its number is free for others from now on, unless what it started lives on without it.
        let id = self.id.take();
        if let Some(id) = id.filter(|_| status.signal().is_some()) {
            let _ = kill_process_group(id, Signal::KILL);
        }
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // It may be gone already.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// How a run ended. What it printed may be secret.
pub(crate) struct Outcome {
    pub(crate) success: bool,
    /// The beginning of what it printed.
    pub(crate) stdout: String,
    /// A hash of all that it printed, apart from where symbolic references other than HEAD point. A mirror has those as plain
    /// references, with what they come to.
    pub(crate) digest: [u8; 32],
    /// The end of what it complained about.
    pub(crate) stderr: String,
    /// Whether it said of a reference that it went, or that it points elsewhere than to something newer.
    pub(crate) drops: bool,
}

/// Runs `command` to its end. Dropping the future kills it.
pub(crate) async fn run(command: &mut Command) -> Result<Outcome, UpdateError> {
    ask(command, &[], STDOUT_BYTES_KEPT).await
}

/// As [`run`], and keeps so much of what it prints.
pub(crate) async fn run_and_keep(command: &mut Command, stdout_bytes: usize) -> Result<Outcome, UpdateError> {
    ask(command, &[], stdout_bytes).await
}

/// As [`run`], with something on its standard input, which fits into a pipe.
async fn ask(command: &mut Command, input: &[u8], stdout_bytes: usize) -> Result<Outcome, UpdateError> {
    let cannot = |error: io::Error| {
        let passes = is_shortage(&error);
        let reason = format!("git cannot be run: {error}");
        if passes { UpdateError::Unavailable(reason) } else { UpdateError::Failed(reason) }
    };
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut group = Group::spawn(command).map_err(cannot)?;
    if let Some(mut stdin) = group.child.stdin.take() {
        // One that does not want to know says so by its status.
        let _ = stdin.write_all(input).await;
    }
    let stdout = group.child.stdout.take().expect("piped by `Program::command`");
    let stderr = group.child.stderr.take().expect("piped by `Program::command`");
    let (out, (stderr, drops), status) = tokio::join!(digest(stdout, stdout_bytes), complaints(stderr), group.wait());
    let (stdout, digest) = out.map_err(cannot)?;
    Ok(Outcome { success: status.map_err(cannot)?.success(), stdout, digest, stderr, drops })
}

async fn digest(mut from: impl AsyncRead + Unpin, bytes_kept: usize) -> io::Result<(String, [u8; 32])> {
    let (mut kept, mut hash, mut buffer) = (Vec::new(), Sha256::new(), vec![0; 16 << 10]);
    let mut line = Vec::new();
    loop {
        match from.read(&mut buffer).await? {
            0 => {
                hash.update(&line);
                return Ok((String::from_utf8_lossy(&kept).into_owned(), hash.finalize().into()));
            }
            read => {
                for part in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
                    line.extend_from_slice(part);
                    if line.ends_with(b"\n") || line.len() > LINE_BYTES_MAX {
                        if !is_symbolic(&line) {
                            hash.update(&line);
                        }
                        line.clear();
                    }
                }
                let room = bytes_kept - kept.len();
                kept.extend_from_slice(&buffer[..read.min(room)]);
            }
        }
    }
}

/// Whether this line of `ls-remote --symref` says where a symbolic reference other than HEAD points.
fn is_symbolic(line: &[u8]) -> bool {
    line.starts_with(b"ref: ") && !line.ends_with(b"\tHEAD\n")
}

/// The last [`STDERR_BYTES_KEPT`] bytes of a stream; what was read before an error counts.
pub(crate) async fn tail(from: impl AsyncRead + Unpin) -> String {
    complaints(from).await.0
}

/// As [`tail`]; and whether any of it says that a reference was dropped.
async fn complaints(mut from: impl AsyncRead + Unpin) -> (String, bool) {
    let (mut kept, mut buffer, mut drops) = (Vec::new(), vec![0; 4 << 10], false);
    while let Ok(read) = from.read(&mut buffer).await
        && read > 0
    {
        // Words may be split between this piece and the one before.
        let from = kept.len().saturating_sub(DROPPED.map(str::len).into_iter().sum());
        kept.extend_from_slice(&buffer[..read]);
        drops |= DROPPED.iter().any(|words| kept[from..].windows(words.len()).any(|part| part == words.as_bytes()));
        let surplus = kept.len().saturating_sub(STDERR_BYTES_KEPT);
        kept.drain(..surplus);
    }
    (String::from_utf8_lossy(&kept).into_owned(), drops)
}
