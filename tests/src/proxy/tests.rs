//! Each fault does what it says, to plain connections.

use std::io;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::wait::within;

/// Echoes, and tells how each of its connections ended.
async fn echo() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<io::Result<u64>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ends, ended) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let ends = ends.clone();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = ends.send(tokio::io::copy(&mut read, &mut write).await);
            });
        }
    });
    (address, ended)
}

async fn said(stream: &mut TcpStream, text: &str) -> io::Result<Duration> {
    let began = Instant::now();
    stream.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, text.as_bytes());
    Ok(began.elapsed())
}

async fn soon<T>(what: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(300), what).await.ok()
}

#[tokio::test]
async fn whole_it_carries_everything_and_late_it_takes_both_ways() {
    let proxy = Proxy::start(echo().await.0, 1).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    said(&mut stream, "hello").await.unwrap();
    proxy.suffer(Fault::Late(Duration::from_millis(100)));
    assert!(said(&mut stream, "late").await.unwrap() >= Duration::from_millis(200));
    proxy.suffer(Fault::Slow { bytes_per_s: 1_000 });
    assert!(said(&mut stream, &"x".repeat(200)).await.unwrap() >= Duration::from_millis(400));
    proxy.suffer(Fault::Lossy { percent: 100 });
    assert!(soon(said(&mut stream, "lost")).await.is_none(), "it waits for the timer");
    proxy.heal();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"lost", "nothing is left out");
}

#[tokio::test]
async fn a_cut_ends_old_and_new_connections() {
    let proxy = Proxy::start(echo().await.0, 1).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    said(&mut stream, "hello").await.unwrap();
    proxy.suffer(Fault::Cut);
    assert!(said(&mut stream, "old").await.is_err());
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(said(&mut new, "new").await.is_err());
    proxy.heal();
    let mut healed = TcpStream::connect(proxy.address()).await.unwrap();
    said(&mut healed, "healed").await.unwrap();
}

#[tokio::test]
async fn a_reset_comes_in_the_middle_of_a_piece_at_both_sides() {
    let (to, mut ended) = echo().await;
    let proxy = Proxy::start(to, 1).await;
    proxy.suffer(Fault::Reset { after: 12 });
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    said(&mut stream, "hello").await.unwrap();
    let reset = said(&mut stream, "a longer piece").await.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    assert!(ended.recv().await.unwrap().is_err(), "reset, not closed");
}

#[tokio::test]
async fn half_open_one_end_is_closed_and_the_other_learns_of_it_when_it_speaks_to_a_whole_network() {
    let (to, mut ended) = echo().await;
    let proxy = Proxy::start(to, 1).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    said(&mut stream, "hello").await.unwrap();
    proxy.suffer(Fault::HalfOpen { kept: Side::Edge });
    ended.recv().await.unwrap().unwrap();
    assert!(soon(said(&mut stream, "anybody?")).await.is_none(), "it hears nothing, not even an end");
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    said(&mut new, "new").await.unwrap();
    proxy.heal();
    within(Duration::from_secs(5), "the end is reset", async || match soon(said(&mut stream, "x")).await {
        Some(Err(_)) => Ok(()),
        other => Err(other.map(|answer| answer.is_ok())),
    })
    .await;
}

#[tokio::test]
async fn deaf_one_way_is_held_back_and_arrives_when_healed() {
    for to in [Side::Hub, Side::Edge] {
        let proxy = Proxy::start(echo().await.0, 1).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        said(&mut stream, "hello").await.unwrap();
        proxy.suffer(Fault::Deaf { to });
        assert!(soon(said(&mut stream, "held")).await.is_none());
        proxy.heal();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"held");
    }
}
