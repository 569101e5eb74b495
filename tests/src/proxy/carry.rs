//! One connection through the proxy: two directions, each a reader and a writer with a short queue between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Fault, Side};

/// Pieces under way in one direction: a bad network has short queues, and the sender soon notices.
const PIECES_MAX: usize = 16;
const PIECE_BYTES_MAX: usize = 16 << 10;
/// A slow line takes small pieces, so that it never owes much.
const SLOW_PIECE_BYTES_MAX: usize = 256;
/// How long TCP waits before it sends a lost piece again; doubled each time (RFC 6298, with Linux's minimum).
const TIMER: Duration = Duration::from_millis(200);
const TIMER_DOUBLINGS_MAX: u32 = 4;

type Piece = (Instant, Vec<u8>);

/// What happens to a connection as a whole.
enum End {
    Closed,
    Reset,
    HalfOpen(Side),
}

/// What both directions of a connection share.
struct Line {
    fault: watch::Receiver<Fault>,
    carried: AtomicU64,
    /// To the edge, by all connections.
    brought: Arc<AtomicU64>,
    reset: Notify,
}

pub(super) async fn carry(
    mut near: TcpStream,
    to: SocketAddr,
    fault: watch::Receiver<Fault>,
    brought: Arc<AtomicU64>,
    seed: u64,
) {
    if *fault.borrow() == Fault::Cut {
        return;
    }
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let line = Line { fault, carried: AtomicU64::new(0), brought, reset: Notify::new() };
    // Half-open is done to the connections that are there, not to the new ones.
    let new_when = *line.fault.borrow();
    match run(&line, &mut near, &mut far, new_when, seed).await {
        End::Closed => {}
        End::Reset => {
            let _ = (near.set_zero_linger(), far.set_zero_linger());
        }
        End::HalfOpen(Side::Edge) => linger(near, far, line.fault).await,
        End::HalfOpen(Side::Hub) => linger(far, near, line.fault).await,
    }
}

async fn run(line: &Line, near: &mut TcpStream, far: &mut TcpStream, new_when: Fault, seed: u64) -> End {
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let mut ends = line.fault.clone();
    let ended = ends.wait_for(|fault| {
        *fault == Fault::Cut || matches!(fault, Fault::HalfOpen { .. }) && *fault != new_when
    });
    tokio::select! {
        ((), ()) = async {
            tokio::join!(
                pump(line, Side::Hub, near_read, far_write, seed),
                pump(line, Side::Edge, far_read, near_write, !seed),
            )
        } => End::Closed,
        () = line.reset.notified() => End::Reset,
        fault = ended => match fault.as_deref() {
            Ok(Fault::HalfOpen { kept }) => End::HalfOpen(*kept),
            _ => End::Closed,
        },
    }
}

/// One end stays and hears nothing. Once the network is whole, its next bytes are answered as by a machine that knows
/// nothing of the connection: with a reset.
async fn linger(mut kept: TcpStream, closed: TcpStream, mut fault: watch::Receiver<Fault>) {
    drop(closed);
    if fault.wait_for(|fault| *fault == Fault::None).await.is_ok() {
        let _ = kept.read(&mut [0; 1]).await;
        let _ = kept.set_zero_linger();
    }
}

async fn pump(line: &Line, to: Side, from: impl AsyncRead + Unpin, into: impl AsyncWrite + Unpin, seed: u64) {
    let (pieces, queue) = mpsc::channel(PIECES_MAX);
    tokio::join!(take(line, to, from, pieces, seed), give(line, to, into, queue));
}

/// Reads pieces and decides when each is due.
async fn take(
    line: &Line,
    to: Side,
    mut from: impl AsyncRead + Unpin,
    pieces: mpsc::Sender<Piece>,
    seed: u64,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut fault = line.fault.clone();
    let mut due = Instant::now();
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        let slow = matches!(*fault.borrow(), Fault::Slow { .. });
        let room = if slow { SLOW_PIECE_BYTES_MAX } else { PIECE_BYTES_MAX };
        let Ok(length @ 1..) = from.read(&mut buffer[..room]).await else { return };
        // Held back, not lost: TCP would send it again until it arrives.
        if fault.wait_for(|fault| *fault != Fault::Deaf { to }).await.is_err() {
            return;
        }
        let mut piece = buffer[..length].to_vec();
        let now = Instant::now();
        let wrong = *fault.borrow();
        due = match wrong {
            Fault::Late(by) => due.max(now + by),
            Fault::Lossy { percent } => due.max(now + sent_again(percent, &mut random)),
            Fault::Slow { bytes_per_s } => {
                due.max(now) + Duration::from_secs(1) * length as u32 / bytes_per_s.max(1)
            }
            Fault::None | Fault::Cut | Fault::Reset { .. } | Fault::HalfOpen { .. } | Fault::Deaf { .. } => {
                now
            }
        };
        let before = line.carried.fetch_add(length as u64, Ordering::Relaxed);
        if let Fault::Reset { after } = wrong
            && before + length as u64 > after
        {
            piece.truncate(length / 2);
            let _ = pieces.send((now, piece)).await;
            return;
        }
        if pieces.send((due, piece)).await.is_err() {
            return;
        }
    }
}

/// Writes pieces when they are due, or as soon as the network is whole.
async fn give(line: &Line, to: Side, mut into: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Piece>) {
    let mut fault = line.fault.clone();
    while let Some((due, piece)) = queue.recv().await {
        tokio::select! {
            () = sleep_until(due) => {}
            _ = fault.wait_for(|fault| *fault == Fault::None) => {}
        }
        if into.write_all(&piece).await.is_err() {
            return;
        }
        if to == Side::Edge {
            line.brought.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    }
    if let Fault::Reset { after } = *line.fault.borrow()
        && line.carried.load(Ordering::Relaxed) > after
    {
        line.reset.notify_one();
        return;
    }
    let _ = into.shutdown().await;
}

/// How long a piece takes more than it should.
fn sent_again(percent: u32, random: &mut StdRng) -> Duration {
    let mut more = Duration::ZERO;
    for times in 0..TIMER_DOUBLINGS_MAX {
        if random.random_range(0..100) >= percent {
            break;
        }
        more += TIMER * 2_u32.pow(times);
    }
    more
}
