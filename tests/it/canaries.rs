//! Five hundred secrets that are known by their beginning, through every way that a secret takes, with every log at its
//! loudest: nowhere may one be found but where it was asked for.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use llm_config_tests::edge::{Edge, try_join};
use llm_config_tests::http::{Client, entry};
use llm_config_tests::hub::Hub;
use llm_config_tests::process::{Process, program};
use llm_config_tests::scratch::{Scratch, files_below};
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How every canary begins.
const MARK: &str = "kanarienvogel-7c1f04";
const COUNT: usize = 500;

fn canary(n: usize) -> String {
    format!("{MARK}-{n:03}-{:016x}", (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Everything that the mark may look like.
fn needles() -> Vec<(String, Vec<u8>)> {
    let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut needles = vec![
        ("clear".to_owned(), MARK.as_bytes().to_vec()),
        ("hex".to_owned(), hex.to_uppercase().into_bytes()),
        ("hex".to_owned(), hex.into_bytes()),
    ];
    for before in 0..3 {
        // What stands before shifts the groups of three; the first and last characters depend on neighbours.
        let shifted = [&vec![b'x'; before][..], MARK.as_bytes()].concat();
        let text = STANDARD_NO_PAD.encode(shifted);
        needles.push((format!("base64 at {before}"), text.as_bytes()[4..text.len() - 2].to_vec()));
    }
    needles
}

/// Texts are searched faster than bytes, and what is looked for is ASCII.
fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).contains(std::str::from_utf8(needle).unwrap())
}

/// In which forms canaries are in some bytes, compressed streams looked into.
fn found(bytes: &[u8]) -> Vec<String> {
    let needles = needles();
    let mut forms: Vec<String> = Vec::new();
    let mut look = |bytes: &[u8], around: &str| {
        let text = String::from_utf8_lossy(bytes);
        let there = needles.iter().filter(|(_, needle)| text.contains(std::str::from_utf8(needle).unwrap()));
        forms.extend(there.map(|(form, _)| format!("{form}{around}")));
    };
    look(bytes, "");
    for at in 0..bytes.len().saturating_sub(2) {
        let mut plain = Vec::new();
        let limit = 1 << 22;
        match bytes[at..at + 3] {
            [0x1f, 0x8b, 0x08] => drop(MultiGzDecoder::new(&bytes[at..]).take(limit).read_to_end(&mut plain)),
            [0x78, 0x01 | 0x9c | 0xda, _] => {
                drop(ZlibDecoder::new(&bytes[at..]).take(limit).read_to_end(&mut plain));
            }
            _ => continue,
        }
        look(&plain, " in a compressed stream");
    }
    forms
}

#[test]
fn what_is_looked_for_is_found_in_every_form() {
    let text = format!("{{\"key\":\"{}\"}}", canary(7));
    assert_eq!(found(text.as_bytes()), ["clear"]);
    for before in 0..3 {
        let encoded = STANDARD_NO_PAD.encode([&b"abc"[..before], text.as_bytes()].concat());
        assert_eq!(found(encoded.as_bytes()).len(), 1, "{encoded}");
    }
    let mut gzip = flate2::write::GzEncoder::new(b"before".to_vec(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
    assert_eq!(found(&gzip.finish().unwrap()), ["clear in a compressed stream"]);
    assert!(found(b"nothing of the kind").is_empty());
}

/// A relay that keeps all that goes through it.
async fn tapped(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tape = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&tape);
    tokio::spawn(async move {
        while let Ok((here, _)) = listener.accept().await {
            let Ok(there) = TcpStream::connect(to).await else { continue };
            let ((read_here, write_here), (read_there, write_there)) =
                (here.into_split(), there.into_split());
            for (mut from, mut into) in [(read_here, write_there), (read_there, write_here)] {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut piece = vec![0; 16 << 10];
                    while let Ok(length @ 1..) = from.read(&mut piece).await {
                        kept.lock().unwrap().extend_from_slice(&piece[..length]);
                        if into.write_all(&piece[..length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    (address, tape)
}

/// Every canary, as secrets of several types, and some of them again through an edge.
async fn write_all(hub: &Client, edge: &Client) {
    let operation = |n: usize| match n % 5 {
        0 => {
            let document = json!({"provider": "p", "key": canary(n)});
            json!({"op": "set", "namespace": "keys", "key": format!("k{n}"), "env": "base", "value": document, "secret_type": "api_key"})
        }
        1 => {
            let document = json!({"username": "u", "password": canary(n)}).to_string();
            json!({"op": "set", "namespace": "keys", "key": format!("k{n}"), "env": "base", "value": document, "secret": true,
                "secret_type": "database_credentials"})
        }
        _ => {
            json!({"op": "set", "namespace": "keys", "key": format!("k{n}"), "env": "base", "value": canary(n), "secret": true})
        }
    };
    let operations: Vec<Value> = (0..COUNT).map(operation).collect();
    hub.post("/api/v1/configs/bulk", json!({"operations": operations})).await.expect(200);
    edge.until(&(entry("keys", "k499") + "?env=base"), |answer| answer.status == 200).await;
    for n in 0..5 {
        let body = json!({"value": canary(n), "env": "base", "secret": true});
        edge.put(&entry("keys", &format!("k{n}")), body).await.expect(200);
    }
}

/// Requests that are refused with a canary in their hands; nothing of it comes back.
async fn err_all(client: &Client) {
    let text = canary(9);
    let bodies = [
        json!({"value": {"provider": text}, "secret_type": "api_key"}),
        json!({"value": text, "secret_type": "x509_certificate"}),
        json!({"value": text, "secret_type": text}),
        json!({"value": [text], "secret": true}),
        json!({"value": text, "secret": true, "expires_at": text}),
        json!({"value": text, "secret": true, "if_version": 77}),
        json!({"value": text, "secret": true, "unknown": text}),
        json!({"value": text.repeat(40_000), "secret": true}),
        json!({"value": "plain over a secret"}),
    ];
    for body in bodies {
        let answer = client.put(&(entry("keys", "k9") + "?env=base"), body).await;
        assert!((400..500).contains(&answer.status) && !answer.text().contains(MARK), "{}", answer.text());
    }
    let cut = format!("{{\"secret\":true,\"value\":\"{text}");
    let answer = client.try_send_bytes("PUT", &entry("keys", "k9"), Some(cut.into())).await.unwrap();
    assert!(answer.status == 400 && !answer.text().contains(MARK), "{}", answer.text());
}

/// What exec started, or what that started: the only processes that have a canary to themselves.
fn is_child_of_exec(process: &Path) -> bool {
    let command = |process: &Path| fs::read(process.join("cmdline")).unwrap_or_default();
    let is_script = |command: &[u8]| command.starts_with(b"sh\0-c\0") && holds(command, b"the-child-of-exec");
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
    let parent = parent.map(|parent| Path::new("/proc").join(parent));
    is_script(&command(process)) || parent.is_some_and(|parent| is_script(&command(&parent)))
}

/// Processes with a canary in their environment or arguments, but for those.
fn exposed() -> Vec<String> {
    let mut exposed = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        for part in ["environ", "cmdline"] {
            // It may be a thread of the kernel, or go before its parent was asked for: then it is asked once more.
            let marked = || holds(&fs::read(process.path().join(part)).unwrap_or_default(), MARK.as_bytes());
            if marked() && !is_child_of_exec(&process.path()) && marked() {
                exposed.push(format!("{part} of {name}"));
            }
        }
    }
    exposed
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_secrets_are_found_nowhere() {
    let scratch = Scratch::new("canaries");
    let heard = scratch.path("heard-by-the-command");
    let make =
        scratch.file("make.sh", &format!("#!/bin/sh\ncat > {}\necho {}\n", heard.display(), canary(600)));
    fs::set_permissions(&make, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let database = scratch.path("hub").join("hub.sqlite");
    let settings = format!(
        "[database]\nurl = \"sqlite:{}\"\n[telemetry]\nlog = \"trace\"\n[secrets.expiry]\ncheck_seconds = 1\n\
         [secrets.rotation]\ncheck_seconds = 1\n[secrets.rotation.commands]\nmake = \"{}\"",
        database.display(),
        make.display()
    );
    let mut hub = Hub::serve(&scratch, &settings).await;
    let (relay, tape) = tapped(hub.sync).await;
    let body = json!({"name": "e1", "namespaces": ["keys"], "environments": ["base"], "write": ["keys"]});
    let token = hub.join_token(body).await;
    try_join(&scratch, "e1", &token, &["--hub", &format!("https://{relay}")]).await.done();
    let edge = Edge::at(&scratch, "e1");
    let log = scratch.path("edge-trace.log");
    let mut command = std::process::Command::new(program("llm-config"));
    command
        .args(["edge", "run", "--data"])
        .arg(edge.data())
        .arg("--socket")
        .arg(edge.socket())
        .env("RUST_LOG", "trace");
    let mut running = Process::start(&mut command, "edge", &log);
    eventually("the edge answers", async || edge.client().try_send("GET", "/health/live", None).await).await;

    write_all(&hub.client(), &edge.client()).await;
    err_all(&hub.client()).await;
    err_all(&edge.client()).await;
    let file = scratch.file("import.json", &json!({"k20": canary(20), "new": "plain"}).to_string());
    let import = ["import", file.to_str().unwrap(), "--namespace", "keys", "--env", "base"];
    let said = hub.cli(&scratch, &import).await;
    assert!(said.code != 0 && !said.err.contains(MARK), "plain over a secret: {}", said.err);

    // A process, a file, a rotation by a command that hears the old value, a purge, a rollback, a backup.
    let out = scratch.path("rendered");
    let template = scratch.file("t.tmpl", "{{ secret('keys', 'k30') }}{{ secret('keys', 'absent') }}");
    let said = edge
        .cli(&["render", template.to_str().unwrap(), "--out", out.to_str().unwrap(), "--env", "base"])
        .await;
    assert!(said.code == 3 && !said.err.contains(MARK), "{}", said.err);
    let mut exec = edge.command();
    exec.args([
        "exec",
        "--env",
        "base",
        "--var",
        "KEY=keys//k32",
        "--settle",
        "100ms",
        "--splay",
        "0s",
        "--",
    ]);
    exec.args(["sh", "-c", "trap 'exit 0' TERM; : the-child-of-exec; while :; do sleep 0.05 || exit; done"]);
    let mut child = Process::start(&mut exec, "exec", &scratch.path("exec.log"));
    let uses = |answer: &llm_config_tests::http::Answer| answer.text().contains("k32");
    edge.client().until("/api/v1/edge/uses", uses).await;
    let rotation = "/api/v1/secrets/keys/k32/";
    let plan = json!({"command": "make", "old_value": true});
    hub.client().put(&format!("{rotation}rotation?env=base"), plan).await.expect(200);
    hub.client().post(&format!("{rotation}rotate?env=base"), json!({})).await.expect(202);
    let retired =
        |answer: &llm_config_tests::http::Answer| answer.json()["rotations"][0]["step"] == "retired";
    hub.client().until(&format!("{rotation}rotation?env=base"), retired).await;
    assert!(fs::read_to_string(&heard).unwrap().contains(&canary(32)), "the command heard the old value");
    hub.client().post(&format!("{rotation}purge?env=base"), json!({"version": 1})).await.expect(200);
    hub.client().post(&(entry("keys", "k0") + "/rollback/1?env=base"), json!({})).await.expect(200);
    let soon = json!({"value": canary(33), "secret": true, "expires_at": "2020-01-01T00:00:00Z"});
    hub.client().put(&(entry("keys", "k33") + "?env=base"), soon).await.expect(200);
    let (backup, _) = hub.back_up(&scratch).await;

    assert_eq!(exposed(), [] as [String; 0]);
    for client in [hub.client(), edge.client()] {
        for path in ["/metrics", "/api/v1/configs/keys?env=base&limit=1000", "/health"] {
            assert!(found(&client.get(path).await.body).is_empty(), "{path}");
        }
    }
    // They are there for who asks, or nothing here proves anything.
    let revealed = edge.client().get(&(entry("keys", "k42") + "?env=base&reveal=true")).await.expect(200);
    assert_eq!(revealed["value"], canary(42));
    child.stop();
    running.stop();
    hub.stop();
    let logs = [log, scratch.path("exec.log")];
    let mut looked_at = files_below(hub.data());
    looked_at.extend(files_below(edge.data()));
    looked_at.extend(logs.map(|path| (path.clone(), fs::read(&path).unwrap())));
    looked_at.push((backup.clone(), fs::read(&backup).unwrap()));
    looked_at.push((PathBuf::from("the hub's log"), hub.log().into_bytes()));
    looked_at.push((PathBuf::from("the wire"), std::mem::take(&mut tape.lock().unwrap())));
    for (path, bytes) in &looked_at {
        assert!(found(bytes).is_empty(), "{}: {:?}", path.display(), found(bytes));
    }
    let loud = looked_at.iter().filter(|(_, bytes)| holds(bytes, b"TRACE")).count();
    assert!(loud >= 2 && looked_at.len() > 8, "{loud} of {} are logs at their loudest", looked_at.len());
}
