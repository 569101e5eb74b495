//! The hub that this user's commands go to when nothing nearer is named: its address, authority and a token, in one file
//! that nobody else can read.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::Address;
use super::connection::{self, Connection};
use super::exit::Failure;
use super::target::{self, Authority, Surroundings, Target, TargetArgs, Token};
use super::{output, typed, whole_file};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// Address of the hub, as https://HOST:PORT; the same as --hub
    #[arg(value_name = "URL", conflicts_with = "hub")]
    url: Option<String>,
}

/// What is remembered, as it lies in the file. Never printed.
#[derive(Serialize, Deserialize)]
struct Remembered {
    hub: String,
    token: String,
    /// PEM of the hub's own authority; absent where it is one that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

/// Where it lies for this user.
pub(crate) fn file(variables: fn(&str) -> Option<String>) -> Option<PathBuf> {
    let folder = variables("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(variables("HOME")?).join(".config")))?;
    Some(folder.join("llm-config/hub.json"))
}

/// The hub that was logged in to; none where nobody has.
///
/// # Errors
/// When the file is not what `login` writes, or others may read it.
pub(crate) fn remembered(path: &Path) -> Result<Option<Target>, Failure> {
    let unusable =
        |why: String| Failure::usage(format!("{}: {why}; run `llm-config login` again", path.display()));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unusable(error.to_string())),
    };
    let mode = fs::metadata(path).map_or(0, |file| file.permissions().mode());
    if mode & 0o077 != 0 {
        let told = "others on this machine can read the token in it; make it yours alone with chmod 600";
        return Err(Failure::usage(format!("{}: {told}", path.display())));
    }
    // What the parser says may quote the file.
    let Remembered { hub, token, ca } =
        serde_json::from_str(&text).map_err(|_| unusable("it is damaged".to_owned()))?;
    Ok(Some(Target::Hub { url: hub, token: Token::Kept(token), ca: ca.map(Authority::Text) }))
}

/// Tries a hub and a token, and remembers them when the hub knows the token.
///
/// # Errors
/// When the hub cannot be reached or refuses; then what was remembered before stays.
pub(crate) async fn login(args: &LoginArgs, target: &TargetArgs, json: bool) -> Result<(), Failure> {
    if target.socket.is_some() || target.storage.is_some() {
        return Err(Failure::usage("one logs in to a hub; an edge's socket knows who you are"));
    }
    let around = Surroundings::real();
    let named =
        target.hub.clone().or_else(|| args.url.clone()).or_else(|| (around.variables)("LLM_CONFIG_HUB"));
    let Some(url) = named else {
        return Err(Failure::usage("say which hub, as https://HOST:PORT"));
    };
    let url = target::hub_address(&url)?.to_owned();
    if !target::is_safe(&url) {
        return Err(Failure::usage(
            "the token would travel in clear; use https:// for a hub that is not here",
        ));
    }
    let token = match (&target.token_file, (around.variables)("LLM_CONFIG_TOKEN")) {
        (Some(file), _) => Token::File(file.clone()),
        (None, Some(text)) => Token::Text(text),
        (None, None) => Token::Text(typed::hidden(&format!("API token for {url}: "))?),
    };
    let token = token.read()?;
    let ca = target.ca.clone().or_else(|| (around.variables)("LLM_CONFIG_CA").map(PathBuf::from));
    let ca = ca.map(|path| connection::authorities(Some(&Authority::File(path)))).transpose()?;
    let hub = Target::Hub {
        url: url.clone(),
        token: Token::Text(token.clone()),
        ca: ca.clone().map(Authority::Text),
    };
    // Any token may ask this, and only a token.
    Connection::open(hub)?.ask(Method::GET, &Address::new(&["environments"]), None).await?;
    let path = keep(&Remembered { hub: url.clone(), token, ca }, around.variables)?;
    if let Some(socket) = around.sockets.first() {
        output::note(format!(
            "note: there is an edge's socket here, {}, and commands go there first",
            socket.display()
        ));
    }
    if json {
        return output::line(json!({"hub": url, "file": path}).to_string());
    }
    output::line(format!(
        "logged in to {url}: commands go there when no edge runs here and nothing else is named"
    ))
}

/// Forgets the hub. The token itself stays valid until it is removed at the hub.
///
/// # Errors
/// When the file cannot be removed.
pub(crate) fn logout(json: bool) -> Result<(), Failure> {
    let path = file(Surroundings::real().variables).ok_or_else(homeless)?;
    let was = match fs::remove_file(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(Failure::failed(format!("cannot remove {}: {error}", path.display()))),
    };
    if json {
        return output::line(json!({"logged_out": was}).to_string());
    }
    output::line(if was { "logged out; the token stays valid at the hub" } else { "nobody was logged in" })
}

fn homeless() -> Failure {
    Failure::usage("there is no place to remember a hub in: set HOME or XDG_CONFIG_HOME")
}

fn keep(remembered: &Remembered, variables: fn(&str) -> Option<String>) -> Result<PathBuf, Failure> {
    let path = file(variables).ok_or_else(homeless)?;
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let text = serde_json::to_string(remembered).map_err(|error| Failure::failed(error.to_string()))?;
    whole_file::replace(&path, &text, 0o600)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.json");
        whole_file::replace(&path, text, mode).unwrap();
        (folder, path)
    }

    #[test]
    fn what_was_remembered_is_a_hub_with_its_token() {
        let text = r#"{"hub":"https://h:1","token":"t","ca":"PEM"}"#;
        let (_folder, path) = written(text, 0o600);
        let hub = Target::Hub {
            url: "https://h:1".into(),
            token: Token::Kept("t".into()),
            ca: Some(Authority::Text("PEM".into())),
        };
        assert_eq!(remembered(&path).unwrap(), Some(hub));
        assert_eq!(remembered(Path::new("/nowhere/hub.json")).unwrap(), None);
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_damaged_is_not_used_and_not_quoted() {
        let (_folder, path) = written(r#"{"hub":"https://h:1","token":"t"}"#, 0o640);
        assert!(remembered(&path).unwrap_err().message.contains("chmod 600"));
        let (_folder, path) = written(r#"{"token":"lcm_secret""#, 0o600);
        let told = remembered(&path).unwrap_err().message;
        assert!(told.contains("login") && !told.contains("lcm_secret"), "{told}");
    }

    #[test]
    fn it_lies_where_the_system_keeps_settings() {
        let home = |name: &str| (name == "HOME").then(|| "/home/a".to_owned());
        assert_eq!(file(home).unwrap(), Path::new("/home/a/.config/llm-config/hub.json"));
        let both = |name: &str| (name == "HOME" || name == "XDG_CONFIG_HOME").then(|| "/x".to_owned());
        assert_eq!(file(both).unwrap(), Path::new("/x/llm-config/hub.json"));
        assert_eq!(file(|_| None), None);
    }
}
