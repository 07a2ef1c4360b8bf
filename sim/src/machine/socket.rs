//! A UDP socket on the fabric and the timers below it, as quinn wants them.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Instant, Sleep};

use super::fabric::{Fabric, Look};

/// A socket of a machine.
#[derive(Debug)]
pub struct FabricSocket {
    fabric: Fabric,
    address: SocketAddr,
    binding: u64,
    /// Rings when the next datagram that is on its way arrives.
    arrival: Mutex<Pin<Box<Sleep>>>,
}

impl FabricSocket {
    /// Binds a socket, in place of an earlier one at this address.
    #[must_use]
    pub fn bind(fabric: &Fabric, address: SocketAddr) -> Arc<Self> {
        let binding = fabric.bind(address);
        let arrival = Mutex::new(Box::pin(tokio::time::sleep_until(Instant::now())));
        Arc::new(Self { fabric: fabric.clone(), address, binding, arrival })
    }
}

impl AsyncUdpSocket for FabricSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(segment) {
            self.fabric.send(self.address, self.binding, transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        while count < buffers.len().min(meta.len()) {
            match self.fabric.look(self.address, self.binding, context.waker()) {
                Look::Datagram(from, bytes) => {
                    let length = bytes.len().min(buffers[count].len());
                    buffers[count][..length].copy_from_slice(&bytes[..length]);
                    meta[count] = RecvMeta::default();
                    (meta[count].addr, meta[count].len, meta[count].stride) = (from, length, length);
                    meta[count].dst_ip = Some(self.address.ip());
                    count += 1;
                }
                _ if count > 0 => break,
                Look::Nothing(Some(next)) => {
                    let mut arrival = self.arrival.lock().expect("nothing panics while it holds this lock");
                    arrival.as_mut().reset(self.fabric.clock().instant(next));
                    ready!(Future::poll(arrival.as_mut(), context));
                }
                // A socket whose machine lost its power stays silent for ever.
                Look::Nothing(None) | Look::Dead => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A send never waits: what does not fit is lost.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Timers and tasks of quinn on the machine's runtime.
#[derive(Debug)]
pub struct VirtualRuntime;

impl Runtime for VirtualRuntime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(Box::pin(tokio::time::sleep_until(at.into()))))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, _socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "there are no real sockets in a simulation"))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

#[derive(Debug)]
struct Timer(Pin<Box<Sleep>>);

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: std::time::Instant) {
        self.0.as_mut().reset(at.into());
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        ready!(Future::poll(self.0.as_mut(), context));
        Poll::Ready(())
    }
}
