//! A way to etcd that can be cut, for one node while the others keep theirs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::task::AbortOnDropHandle;

pub(crate) struct Proxy {
    port: u16,
    cut: Arc<AtomicBool>,
    changed: Arc<Notify>,
    _serving: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Leads to `url`.
    pub(crate) async fn to(url: &str) -> Self {
        let target = url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, changed) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (is_cut, is_changed) = (cut.clone(), changed.clone());
        let serving = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                if is_cut.load(Ordering::Acquire) {
                    continue;
                }
                let (target, changed) = (target.clone(), is_changed.clone());
                tokio::spawn(async move {
                    let Ok(mut to) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                        () = changed.notified() => {}
                    }
                });
            }
        });
        Self { port, cut, changed, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends all connections and takes no new ones.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn mend(&self) {
        self.cut.store(false, Ordering::Release);
    }
}
