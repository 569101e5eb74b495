//! A piece of network between an edge and its hub that can be as bad as networks are.
//!
//! TCP makes up for what is lost, so what an application sees of bad networks is time and ends: bytes that are late,
//! that come slowly or not at all for a while, and connections that end in the middle of something, or at one side
//! only. Bytes are never left out: that would be no network but an attacker, and TLS is there for that.

mod carry;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// One side of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Edge,
    Hub,
}

/// What is wrong with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every connection ends, and each new one at once.
    Cut,
    /// Of a hundred pieces so many are sent again, some more than once: each waits for TCP's timer, and all behind it.
    Lossy {
        percent: u32,
    },
    /// Every piece is late by this much, each way.
    Late(Duration),
    /// Each way.
    Slow {
        bytes_per_s: u32,
    },
    /// Connections are reset at both sides in the middle of a piece, once about so many bytes went through.
    Reset {
        after: u64,
    },
    /// One side's end stays open and hears nothing, the other end is closed. New connections are whole.
    HalfOpen {
        kept: Side,
    },
    /// Nothing arrives from one side, on old and new connections.
    Deaf {
        to: Side,
    },
}

/// A TCP relay to one address. Equal seeds lose the same pieces.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    to: watch::Sender<SocketAddr>,
    brought: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback and relays to `to`.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start(to: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, watching) = watch::channel(Fault::None);
        let (to, aim) = watch::channel(to);
        let brought = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&brought);
        let accepting = tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (watching, counted) = (watching.clone(), Arc::clone(&counted));
                let seed = seed ^ connection << 32;
                tokio::spawn(carry::carry(stream, *aim.borrow(), watching, counted, seed));
            }
        });
        Self { address, fault, to, brought, accepting }
    }

    /// Where edges connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes from the hub were handed on, by all connections.
    pub fn brought(&self) -> u64 {
        self.brought.load(Ordering::Relaxed)
    }

    /// From now on this is wrong, and nothing else.
    pub fn suffer(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// From now on new connections go there.
    pub fn lead_to(&self, to: SocketAddr) {
        self.to.send_replace(to);
    }

    /// The network is as it should be; what was held back arrives.
    pub fn heal(&self) {
        self.suffer(Fault::None);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[cfg(test)]
mod tests;
