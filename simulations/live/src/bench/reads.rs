//! Reads on the local socket: at one connection and at sixteen, beside the floor.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{Bench, ENVIRONMENT, FOLDER, Figure, floor, rows};
use crate::api;
use crate::measure::Samples;

const ENTRIES: usize = 10_000;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(3);

/// Measures an edge with 10,000 entries.
///
/// # Errors
/// When a program does not do its part.
pub async fn figures(below: &Path) -> anyhow::Result<Vec<Figure>> {
    let bench = Bench::start(below).await?;
    bench.bulk(&(0..ENTRIES).map(|number| rows::set(number, 0)).collect::<Vec<_>>()).await?;
    let (mut edge, _network) = bench.edge("reader").await?;
    edge.ready().await?;
    edge.api.reaches(FOLDER, &bench.hub.api.position(FOLDER).await?).await?;
    let bare = edge.socket().with_file_name("floor.sock");
    let _floor = floor::start(&bare).await?;
    let mut figures = Vec::new();
    for (connections, names) in [(1, ONE), (16, SIXTEEN)] {
        let possible = load(&bare, connections).await?;
        let ours = load(edge.socket(), connections).await?;
        let rate = |samples: &Samples| samples.count() as f64 / MEASURED.as_secs_f64();
        let share = rate(&ours) / rate(&possible);
        figures.push(
            Figure::plain(names[0], rate(&ours), "reads/s")
                .over(rate(&possible), "bare axum on a socket")
                .bound("≥ 0.75 × the floor", share >= 0.75),
        );
        for (name, part) in [(names[1], 0.5), (names[2], 0.99)] {
            let micros = |samples: &Samples| samples.at(part).as_secs_f64() * 1e6;
            figures.push(
                Figure::plain(name, micros(&ours), "µs").over(micros(&possible), "bare axum on a socket"),
            );
        }
    }
    Ok(figures)
}

const ONE: [&str; 3] =
    ["local reads, 1 connection", "local read p50, 1 connection", "local read p99, 1 connection"];
const SIXTEEN: [&str; 3] =
    ["local reads, 16 connections", "local read p50, 16 connections", "local read p99, 16 connections"];

async fn load(socket: &Path, connections: usize) -> anyhow::Result<Samples> {
    let clients: Vec<_> = (0..connections)
        .map(|salt| {
            let socket = socket.to_owned();
            tokio::task::spawn_blocking(move || closed_loop(socket, salt))
        })
        .collect();
    let mut samples = Vec::new();
    for client in clients {
        samples.extend(client.await??);
    }
    Ok(Samples::new(samples))
}

/// One closed loop: the next request goes out when the answer to the last is complete. Blocking, and with the least
/// parser that finds the end of an answer, so that what is measured is the server.
fn closed_loop(socket: PathBuf, salt: usize) -> anyhow::Result<Vec<Duration>> {
    let mut stream = UnixStream::connect(&socket)?;
    let (mut samples, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let requests: Vec<_> = (0..ENTRIES).map(|n| request((n * 613 + salt * 977) % ENTRIES)).collect();
    let begun = Instant::now();
    for request in requests.iter().cycle() {
        let started = Instant::now();
        stream.write_all(request.as_bytes())?;
        answer(&mut stream, &mut buffer)?;
        if begun.elapsed() > WARM_UP {
            samples.push(started.elapsed());
        }
        if begun.elapsed() > WARM_UP + MEASURED {
            break;
        }
    }
    Ok(samples)
}

fn request(number: usize) -> String {
    let target = api::entry(FOLDER, &rows::key(number), &format!("?env={ENVIRONMENT}"));
    format!("GET {target} HTTP/1.1\r\nhost: edge\r\n\r\n")
}

/// Reads one answer with a content length.
fn answer(stream: &mut UnixStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut read = 0;
    let end = loop {
        let more = stream.read(&mut buffer[read..])?;
        if more == 0 {
            bail!("the server closed the connection");
        }
        read += more;
        if let Some(end) = head_end(&buffer[..read]) {
            break end;
        }
    };
    let head = std::str::from_utf8(&buffer[..end]).context("a head is text")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("a read failed: {}", head.lines().next().unwrap_or_default());
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse::<usize>().ok())
        .context("an answer has a length")?;
    while read < end + length {
        match stream.read(&mut buffer[read..])? {
            0 => bail!("the server closed the connection"),
            more => read += more,
        }
    }
    Ok(())
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}
