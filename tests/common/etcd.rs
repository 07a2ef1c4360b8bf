//! A private etcd: real servers, child processes on free ports, in a folder that goes with them.

use std::{
    fs::File,
    future::Future,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// How long an etcd may take for anything.
const DEADLINE: Duration = Duration::from_secs(40);

/// One or more servers that form a cluster.
pub struct Etcd {
    servers: Vec<Server>,
    tls: bool,
    quota: Option<u64>,
    user: Option<String>,
    dir: tempfile::TempDir,
}

struct Server {
    name: String,
    client: u16,
    peer: u16,
    child: Option<Child>,
}

impl Etcd {
    pub async fn start(count: usize) -> Self {
        Self::with_settings(count, false, None).await
    }

    /// That takes no more than so much.
    pub async fn with_quota(bytes: u64) -> Self {
        Self::with_settings(1, false, Some(bytes)).await
    }

    /// With certificates in its folder: `ca.pem`, and `etcd.pem` and `etcd.key` for both sides.
    pub async fn with_tls() -> Self {
        Self::with_settings(1, true, None).await
    }

    async fn with_settings(count: usize, tls: bool, quota: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if tls {
            write_certificates(dir.path());
        }
        let server = |number| Server { name: format!("etcd{number}"), client: port(), peer: port(), child: None };
        let mut etcd = Self { servers: (0..count).map(server).collect(), tls, quota, user: None, dir };
        for index in 0..count {
            etcd.launch(index);
        }
        etcd.until_healthy().await;
        etcd
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn url(&self, index: usize) -> String {
        format!("{}://127.0.0.1:{}", if self.tls { "https" } else { "http" }, self.servers[index].client)
    }

    pub fn urls(&self) -> Vec<String> {
        (0..self.servers.len()).map(|index| self.url(index)).collect()
    }

    /// Starts a server, anew or again with what it has on disk.
    pub fn launch(&mut self, index: usize) {
        let cluster: Vec<String> =
            self.servers.iter().map(|server| format!("{}=http://127.0.0.1:{}", server.name, server.peer)).collect();
        let client = self.url(index);
        let (dir, tls, quota) = (self.dir.path(), self.tls, self.quota);
        let server = &mut self.servers[index];
        let peer = format!("http://127.0.0.1:{}", server.peer);
        let log = File::options().create(true).append(true).open(dir.join(format!("{}.log", server.name))).unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &server.name, "--data-dir"])
            .arg(dir.join(&server.name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", "datad-test"])
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(dir.join("ca.pem"));
            command.arg("--cert-file").arg(dir.join("etcd.pem")).arg("--key-file").arg(dir.join("etcd.key"));
        }
        if let Some(bytes) = quota {
            command.args(["--quota-backend-bytes", &bytes.to_string()]);
        }
        assert!(server.child.is_none());
        server.child = Some(command.spawn().expect("etcd is installed"));
    }

    pub async fn until_healthy(&self) {
        until("etcd answers", || async { self.try_ctl(&["get", "/health"]).is_ok() }).await;
    }

    /// SIGKILL.
    pub fn kill9(&mut self, index: usize) {
        let mut child = self.servers[index].child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, index: usize, signal: Signal) {
        let pid = self.servers[index].child.as_ref().expect("it runs").id();
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
    }

    /// From now on users have to say who they are: root, or `datad`, who may do what they like below `/datad/`.
    pub fn ask_for_users(&mut self) {
        self.ctl(&["user", "add", "root:rootpw"]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["role", "add", "datad"]);
        self.ctl(&["role", "grant-permission", "datad", "--prefix=true", "readwrite", "/datad/"]);
        self.ctl(&["user", "add", "datad:secret"]);
        self.ctl(&["user", "grant-role", "datad", "datad"]);
        self.ctl(&["auth", "enable"]);
        self.user = Some("root:rootpw".into());
    }

    /// Runs etcdctl; what it printed.
    pub fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args).unwrap_or_else(|error| panic!("etcdctl {args:?}: {error}"))
    }

    fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        let live: Vec<String> = (0..self.servers.len())
            .filter(|index| self.servers[*index].child.is_some())
            .map(|index| self.url(index))
            .collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &live.join(",")]).args(["--dial-timeout", "2s"]);
        if self.tls {
            let file = |name: &str| self.dir.path().join(name);
            command.arg("--cacert").arg(file("ca.pem")).arg("--cert").arg(file("etcd.pem"));
            command.arg("--key").arg(file("etcd.key"));
        }
        if let Some(user) = &self.user {
            command.args(["--user", user]);
        }
        let output = command.args(args).output().expect("etcdctl is installed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// All names below `prefix`.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let listed = self.ctl(&["get", "--prefix", "--keys-only", prefix]);
        listed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// The value of one name; empty if there is none.
    pub fn value(&self, name: &str) -> String {
        self.ctl(&["get", "--print-value-only", name]).trim_end_matches('\n').to_owned()
    }

    /// Forgets the history up to now.
    pub fn compact(&self) {
        let status = self.ctl(&["get", "/", "-w", "json"]);
        let header: serde_json::Value = serde_json::from_str(&status).unwrap();
        let revision = header["header"]["revision"].as_i64().unwrap();
        self.ctl(&["compact", &revision.to_string()]);
    }

    /// The server that leads.
    pub fn leader(&self) -> usize {
        let endpoints: serde_json::Value =
            serde_json::from_str(&self.ctl(&["endpoint", "status", "-w", "json"])).unwrap();
        let leads = |status: &&serde_json::Value| status["Status"]["leader"] == status["Status"]["header"]["member_id"];
        let status = endpoints.as_array().unwrap().iter().find(leads).expect("one of them leads");
        let endpoint = status["Endpoint"].as_str().unwrap();
        (0..self.servers.len()).find(|index| self.url(*index) == endpoint).unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for server in &mut self.servers {
            if let Some(child) = &mut server.child {
                let _ = child.kill();
                let _ = child.wait();
            }
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.dir.path().join(format!("{}.log", server.name)));
                let log = log.unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {} ---\n{}", server.name, lines[lines.len().saturating_sub(15)..].join("\n"));
            }
        }
    }
}

async fn until<F, T>(what: &str, mut condition: F)
where
    F: FnMut() -> T,
    T: Future<Output = bool>,
{
    let waited = tokio::time::timeout(DEADLINE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {DEADLINE:?}: {what}");
}

/// A port that nobody else in this process was given, below those of outgoing connections and above those of nodes.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id().wrapping_mul(4_241) % 2_500;
    for _ in 0..2_500 {
        let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 30_100 + ((start + offset) % 2_500) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

fn write_certificates(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(dir.join("etcd.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("etcd.key"), key.serialize_pem()).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dir.join("etcd.key"), private).unwrap();
}
