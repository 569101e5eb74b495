//! Accepting TLS connections: handshakes beside each other, each under a limit of time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;

/// A client that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many handshakes may run at a time; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 512;
/// Pause after the kernel refused a connection, so that a full table of files does not burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections whose handshake is done.
pub struct TlsConnections(mpsc::Receiver<io::Result<TlsStream<TcpStream>>>);

impl Stream for TlsConnections {
    type Item = io::Result<TlsStream<TcpStream>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Accepts until the connections are dropped. The configuration of the moment is used for each new connection, so that
/// a certificate can be renewed without closing anything.
///
/// One silent client does not stop the others. Refused handshakes are logged here, because nobody above sees them.
pub fn accept_loop(listener: TcpListener, config: watch::Receiver<Arc<ServerConfig>>) -> TlsConnections {
    let (done, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        let handshakes = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
        loop {
            let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = done.closed() => return,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let acceptor = TlsAcceptor::from(config.borrow().clone());
            let done = done.clone();
            tokio::spawn(async move {
                if let Some(stream) = handshake(acceptor, tcp, address).await {
                    drop(permit);
                    // Nobody takes connections any more: the listener is about to end.
                    let _ = done.send(Ok(stream)).await;
                }
            });
        }
    });
    TlsConnections(connections)
}

async fn handshake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    address: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    // Small frames go out at once; tonic's own setting does not reach a listener that is not its own.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%address, %error, "connection gone before the handshake");
        return None;
    }
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!(%address, %error, "handshake refused");
            None
        }
        Err(_) => {
            tracing::info!(%address, "handshake timed out");
            None
        }
    }
}

/// The same for `axum::serve`.
pub struct TlsListener {
    connections: TlsConnections,
    address: SocketAddr,
}

impl TlsListener {
    /// # Errors
    /// When the listener has no address.
    pub fn new(listener: TcpListener, config: watch::Receiver<Arc<ServerConfig>>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        Ok(Self { connections: accept_loop(listener, config), address })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.connections.0.recv().await {
                Some(Ok(stream)) => {
                    let address = stream.get_ref().0.peer_addr().unwrap_or(self.address);
                    return (stream, address);
                }
                Some(Err(_)) => {}
                // The accepting task ended with the runtime; there is nothing to give and no way to say so.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
