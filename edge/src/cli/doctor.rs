//! Status and doctor: how what you talk to is doing, and what to do when it is not well.

use std::os::unix::fs::FileTypeExt as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::address::Address;
use super::connection::Connection;
use super::exit::{Exit, Failure};
use super::output;
use super::target::{self, Surroundings, Target, TargetArgs};

/// From here on two clocks are told apart: writes from further ahead are held.
const CLOCK_MS_MAX: u64 = llm_config_shared::limits::CLOCK_EPSILON_MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Doubtful,
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Finding {
    verdict: Verdict,
    what: String,
    /// What to do about it.
    remedy: Option<&'static str>,
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, what: what.into(), remedy: None }
    }

    fn doubtful(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { verdict: Verdict::Doubtful, what: what.into(), remedy: Some(remedy) }
    }

    fn bad(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { verdict: Verdict::Bad, what: what.into(), remedy: Some(remedy) }
    }
}

#[derive(Debug, Deserialize)]
struct Health {
    status: String,
    version: String,
    timestamp: String,
    /// Of a hub of several processes: whether it writes itself.
    role: Option<String>,
}

/// Says how the target is: its health, and of an edge what it holds.
pub(crate) async fn status(connection: &Connection, json: bool) -> Result<(), Failure> {
    let health = connection.ask(Method::GET, &Address::new(&["health"]), None).await?;
    let edge = match connection.target() {
        Target::Edge { .. } => {
            Some(connection.ask(Method::GET, &Address::new(&["edge", "status"]), None).await?)
        }
        Target::Hub { .. } => None,
    };
    if json {
        let parts = edge.map_or_else(String::new, |edge| format!(",\"edge\":{}", edge.text()));
        return output::line(format!("{{\"health\":{}{parts}}}", health.text()));
    }
    let told: Health = health.parsed()?;
    let role = told.role.map_or_else(String::new, |role| format!(", {role}"));
    output::line(format!("{}: {}{role}, version {}", connection.target(), told.status, told.version))?;
    match edge {
        None => Ok(()),
        Some(edge) => super::edge::tell(&edge),
    }
}

/// Looks at everything between the command line and the hub, and says what to do.
///
/// # Errors
/// When something is bad enough that commands will fail.
pub(crate) async fn doctor(args: &TargetArgs, json: bool) -> Result<(), Failure> {
    let findings = examine(args).await;
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if json {
        let told: Vec<_> = findings
            .iter()
            .map(|finding| {
                let verdict = format!("{:?}", finding.verdict).to_lowercase();
                json!({"verdict": verdict, "what": finding.what, "remedy": finding.remedy})
            })
            .collect();
        output::line(json!({"healthy": bad == 0, "findings": told}).to_string())?;
    } else {
        for finding in &findings {
            let sign = match finding.verdict {
                Verdict::Good => "ok  ",
                Verdict::Doubtful => "look",
                Verdict::Bad => "BAD ",
            };
            let remedy = finding.remedy.map_or_else(String::new, |remedy| format!("\n      {remedy}"));
            output::line(format!("{sign}  {}{remedy}", finding.what))?;
        }
    }
    match bad {
        0 => Ok(()),
        1 => Err(Failure::failed("one thing needs your attention; see above")),
        many => Err(Failure::failed(format!("{many} things need your attention; see above"))),
    }
}

async fn examine(args: &TargetArgs) -> Vec<Finding> {
    let target = match target::resolve(args, &Surroundings::real()) {
        Ok(target) => target,
        Err(failure) => {
            let remedy =
                "say where to go: `llm-config login URL`, --socket PATH, or --hub URL with --token-file FILE";
            return vec![Finding::bad(failure.to_string(), remedy)];
        }
    };
    let mut findings = vec![Finding::good(format!("commands go to the {target}"))];
    findings.extend(at_hand(&target));
    let connection = match Connection::open(target) {
        Ok(connection) => connection,
        Err(failure) => {
            findings
                .push(Finding::bad(failure.to_string(), "correct what the message names, then look again"));
            return findings;
        }
    };
    let asked = Instant::now();
    match connection.ask(Method::GET, &Address::new(&["health"]), None).await {
        Err(failure) => {
            findings.push(Finding::bad(
                failure.to_string(),
                "start it, or correct the address; its log says why it ended",
            ));
            return findings;
        }
        Ok(answer) => match answer.parsed::<Health>() {
            Ok(health) => findings.extend(healthy(&health, asked)),
            Err(failure) => findings.push(Finding::bad(failure.to_string(), "something else listens there")),
        },
    }
    findings.push(admitted(&connection).await);
    if matches!(connection.target(), Target::Edge { .. }) {
        let edge = asked_edge(&connection).await;
        findings.extend(edge.as_ref().map(keys));
        let locked = edge.is_some_and(|edge| edge.memory_locked);
        findings.extend(if locked {
            Some(Finding::good("the edge's memory does not go to a disk"))
        } else {
            swap()
        });
    }
    findings
}

/// What lies on this machine.
fn at_hand(target: &Target) -> Vec<Finding> {
    match target {
        Target::Edge { socket } => match std::fs::metadata(socket) {
            Ok(file) if file.file_type().is_socket() => vec![Finding::good("the socket is there")],
            Ok(_) => vec![Finding::bad(
                format!("{} is no socket", socket.display()),
                "give the path that `llm-config edge run --socket` was started with",
            )],
            Err(error) => vec![Finding::bad(
                format!("{} cannot be reached: {error}", socket.display()),
                "start the edge with `llm-config edge run`, or ask for access to the folder",
            )],
        },
        Target::Hub { url, token, .. } => {
            let mut findings = Vec::new();
            if let target::Token::File(path) = token {
                findings.extend(std::fs::metadata(path).ok().and_then(|file| {
                    let open = std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o077 != 0;
                    let what = format!("others on this machine can read {}", path.display());
                    open.then(|| Finding::doubtful(what, "chmod 600 it"))
                }));
            }
            if !target::is_safe(url) {
                findings.push(Finding::bad(
                    "the token would travel in clear",
                    "use https:// for a hub that is not here",
                ));
            }
            findings
        }
    }
}

fn healthy(health: &Health, asked: Instant) -> Vec<Finding> {
    let what = format!("it is {}, version {}", health.status, health.version);
    let state = match health.status.as_str() {
        "healthy" => Finding::good(what),
        "degraded" => Finding::doubtful(
            what,
            "an edge without its hub serves what it has; check the network to the hub",
        ),
        _ => Finding::bad(what, "its log says what is wrong"),
    };
    let mut findings = vec![state];
    let took = asked.elapsed().as_millis() as u64;
    let here = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    if let Some(there) = unix_millis(&health.timestamp) {
        let apart = here.abs_diff(there).saturating_sub(took);
        // A timestamp may be cut to whole seconds.
        findings.push(if apart > CLOCK_MS_MAX + 1_000 {
            let what = format!("the clocks are {} apart", output::age(apart));
            Finding::doubtful(
                what,
                "set both clocks by NTP: writes from a clock that is ahead wait for a person",
            )
        } else {
            Finding::good("the clocks agree")
        });
    }
    findings
}

/// How an edge keeps what must not get away.
#[derive(Debug, Deserialize)]
struct AskedEdge {
    keys_kept_by: String,
    #[serde(default)]
    memory_locked: bool,
}

async fn asked_edge(connection: &Connection) -> Option<AskedEdge> {
    let answer = connection.ask(Method::GET, &Address::new(&["edge", "status"]), None).await.ok()?;
    answer.parsed().ok()
}

/// Who keeps the edge's keys while it is switched off.
fn keys(edge: &AskedEdge) -> Finding {
    let what = format!("the edge's keys are kept by: {}", edge.keys_kept_by);
    match edge.keys_kept_by.as_str() {
        "file" => Finding::doubtful(
            what + "; a copy of the disk has them",
            "stop it and run `llm-config edge rekey --key auto`, which takes the TPM where there is one",
        ),
        "keychain" => Finding::good(what + "; each start waits until its user has logged in"),
        _ => Finding::good(what),
    }
}

/// Whether memory may go to a disk, keys and values with it.
fn swap() -> Option<Finding> {
    swapped(&std::fs::read_to_string("/proc/swaps").ok()?)
}

fn swapped(table: &str) -> Option<Finding> {
    let in_memory = |area: &&str| area.starts_with("/dev/zram");
    let areas: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    let on_disk: Vec<&str> = areas.into_iter().filter(|area| !in_memory(area)).collect();
    if on_disk.is_empty() {
        return Some(Finding::good("memory does not go to a disk"));
    }
    let what = format!("memory may go to {}, keys and secrets with it", on_disk.join(", "));
    Some(Finding::doubtful(
        what,
        "let the edge lock its memory (LimitMEMLOCK=infinity in its unit, as in deploy/systemd), switch swap off, or encrypt it with a key of each start",
    ))
}

/// Whether the caller may look at anything at all.
async fn admitted(connection: &Connection) -> Finding {
    let address = Address::new(&["configs", "doctor"]).with("limit", "1");
    match connection.ask(Method::GET, &address, None).await {
        Ok(_) => Finding::good("you may read"),
        Err(failure) if failure.exit == Exit::NotFound => Finding::good("you may read"),
        Err(failure) if failure.exit == Exit::Denied => {
            Finding::bad(failure.to_string(), "ask for an API token, or for access to the edge's socket")
        }
        Err(failure) => Finding::doubtful(failure.to_string(), "reading does not work right now"),
    }
}

/// Milliseconds since 1970 of an RFC 3339 time in UTC.
fn unix_millis(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (time.next()?.parse::<i64>().ok()?, time.next()?.parse::<i64>().ok()?);
    let second = time.next()?.parse::<f64>().ok()?;
    // Days from the civil calendar, counted in years that begin in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60;
    u64::try_from(seconds * 1_000 + (second * 1e3) as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(unix_millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_millis("2024-02-29T12:34:56.789Z"), Some(1_709_210_096_789));
        assert_eq!(unix_millis("2026-11-23T06:00:00+00:00"), Some(1_795_413_600_000));
        assert_eq!(unix_millis("yesterday"), None);
    }

    #[test]
    fn swap_on_a_disk_is_doubtful_and_in_memory_it_is_not() {
        let head = "Filename\tType\tSize\tUsed\tPriority\n";
        let verdict = |table: &str| swapped(table).map(|finding| finding.verdict);
        assert_eq!(verdict(head), Some(Verdict::Good));
        assert_eq!(verdict(&format!("{head}/dev/zram0 partition 1 0 5\n")), Some(Verdict::Good));
        let told =
            swapped(&format!("{head}/dev/zram0 partition 1 0 5\n/dev/sda2 partition 1 0 -2\n")).unwrap();
        assert!(told.verdict == Verdict::Doubtful && told.what.contains("/dev/sda2"), "{told:?}");
    }

    #[test]
    fn a_hub_reached_in_clear_is_bad_unless_it_is_here() {
        let hub =
            |url: &str| Target::Hub { url: url.into(), token: target::Token::Text("t".into()), ca: None };
        assert_eq!(at_hand(&hub("http://hub.example:8080"))[0].verdict, Verdict::Bad);
        assert!(at_hand(&hub("http://127.0.0.1:8080")).is_empty());
        assert!(at_hand(&hub("https://hub.example")).is_empty());
        let socket = Target::Edge { socket: "/nowhere/edge.sock".into() };
        assert_eq!(at_hand(&socket)[0].verdict, Verdict::Bad);
    }
}
