//! Joining a hub, leaving it, and staying known to it: enrolment, and renewal of the certificate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use llm_config_proto::join_token::{InvalidJoinToken, JoinToken};
use llm_config_proto::key_statement::{InvalidStatement, KeyStatement};
use llm_config_proto::possession::{join_message, renew_message};
use llm_config_proto::sync::{Client, Credentials, Dial, EnrollRequest, RenewReply, RenewRequest, SyncError};
use llm_config_proto::tls::{Identity, TlsError, Trust, fingerprint};
use llm_config_shared::name::{EdgeName, Subtree};
use llm_config_shared::removal::verify_removal;
use llm_config_shared::segment::{Rejected, VerificationKeys};
use llm_config_shared::time::UnixMillis;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::identity::{EdgeIdentity, IdentityError, StoredCredentials, UnreadableCertificate};
use crate::keeper::{self, Keeper, KeyChoice};
use crate::keys::{self, EdgeKeys, KeyError};
use crate::offline::{NeedsTpm, OfflineRestart};
use crate::serve::unix::{DirectoryLock, SocketError};
use crate::wipe;

/// A token file is never larger.
const TOKEN_FILE_BYTES_MAX: u64 = 4 << 10;
/// Where the replica lies in the edge's directory.
pub const REPLICA: &str = "replica";

/// What `edge join` is told.
#[derive(Clone, Debug, Default)]
pub struct JoinOptions {
    /// The edge's directory; made if it is not there.
    pub directory: PathBuf,
    pub token_file: PathBuf,
    /// `https://HOST:PORT`, where it is not the one in the token.
    pub hub: Option<String>,
    /// The CA's certificate as PEM, to be compared with the token's fingerprint.
    pub ca_file: Option<PathBuf>,
    /// Heard only where the token leaves a choice.
    pub name: Option<EdgeName>,
    /// What the caller expects to receive.
    pub namespaces: Vec<Subtree>,
    /// Who keeps its keys.
    pub key: KeyChoice,
    /// What becomes of secrets at a start without the hub.
    pub offline_restart: OfflineRestart,
}

/// An edge that has just joined.
#[derive(Debug)]
pub struct Joined {
    pub identity: EdgeIdentity,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Why an edge did not join or renew.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("{} has joined a hub already, as {name}; leave it first: llm-config edge leave", directory.display())]
    AlreadyJoined { directory: PathBuf, name: EdgeName },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Token(#[from] InvalidJoinToken),
    #[error("the hub's address {0} is not of the form https://HOST:PORT")]
    Address(String),
    #[error("{} is not the certificate that the join token was made for", .0.display())]
    OtherCa(PathBuf),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Hub(#[from] SyncError),
    #[error(transparent)]
    Statement(#[from] InvalidStatement),
    #[error("the hub's list of signing keys is older than the one that this edge has")]
    OldStatement,
    #[error("the hub's word that this edge was removed is not taken: {0}")]
    Removal(Rejected),
    #[error("the hub sent another CA certificate than the one that was verified")]
    CaChanged,
    #[error(transparent)]
    Certificate(#[from] UnreadableCertificate),
    #[error(transparent)]
    Running(#[from] SocketError),
    #[error(transparent)]
    NeedsTpm(#[from] NeedsTpm),
    #[error(
        "everything that the edge held here is destroyed, but what opened its keys is not; run this again, for {0}"
    )]
    Kept(Box<KeyError>),
    #[error("what this edge held is being destroyed; run: llm-config edge wipe --force")]
    Wiped,
}

impl JoinError {
    /// Whether the same may work later: nothing was refused, the hub was only not there.
    pub fn may_pass(&self) -> bool {
        use llm_config_proto::sync::RefusalKind;
        let error = match self {
            Self::Hub(error) => error,
            Self::Keys(error) => return error.may_pass(),
            Self::Kept(error) => return error.may_pass(),
            Self::AlreadyJoined { .. }
            | Self::File { .. }
            | Self::Token(_)
            | Self::Address(_)
            | Self::OtherCa(_)
            | Self::Tls(_)
            | Self::Identity(_)
            | Self::Statement(_)
            | Self::OldStatement
            | Self::Removal(_)
            | Self::CaChanged
            | Self::Certificate(_)
            | Self::Running(_)
            | Self::NeedsTpm(_)
            | Self::Wiped => return false,
        };
        match error {
            SyncError::Unreachable { .. } | SyncError::Lost(_) => true,
            SyncError::Refused(refusal) => {
                matches!(refusal.kind, RefusalKind::Busy | RefusalKind::Internal)
            }
            SyncError::UntrustedHub(_)
            | SyncError::CertificateRefused(_)
            | SyncError::Tls(_)
            | SyncError::Invalid(_) => false,
        }
    }
}

/// Joins the hub that the token names: makes keys, proves that it has them, and keeps what the hub says that it is.
/// Repeated after a lost answer it gets the same answer again.
///
/// # Errors
/// When the token, the hub or the disk is not as it must be; the keys made stay for the next attempt.
pub async fn join(options: &JoinOptions) -> Result<Joined, JoinError> {
    let directory = &options.directory;
    make_private(directory)?;
    let _lock = DirectoryLock::take(directory)?;
    join_locked(options).await
}

pub(crate) async fn join_locked(options: &JoinOptions) -> Result<Joined, JoinError> {
    let directory = &options.directory;
    // What was wiped here before is gone to the last file before anything new begins.
    if wipe::is_pending(directory) {
        wipe::destroy_all(directory)?;
        wipe::forget(directory)?;
    }
    if EdgeIdentity::exists(directory) {
        let name = EdgeIdentity::load(directory)?.name;
        return Err(JoinError::AlreadyJoined { directory: directory.clone(), name });
    }
    let token = read_token(&options.token_file)?;
    let hub = options.hub.clone().unwrap_or_else(|| token.hub.clone());
    let trust = trust(options, &token)?;
    let keys = kept(options)?;
    let mut client = Client::connect(&Dial { address: address(&hub)?, trust, identity: None }).await?;
    let ca_pem = client.ca_pem().ok_or(JoinError::CaChanged)?.to_owned();

    let (public_key, (_, sealing_key)) = (keys.public_key(), keys.sealing_pair());
    let proof = keys.sign(&join_message(&token.secret, &public_key, &sealing_key))?;
    let request = EnrollRequest {
        secret: token.secret.clone(),
        public_key: public_key.into(),
        sealing_key: Bytes::copy_from_slice(&sealing_key),
        requested_name: options.name.clone(),
        proof: proof.into(),
    };
    let reply = client.enroll(request).await?;
    let now = Clock::start().wall();
    let identity = EdgeIdentity {
        tenant: reply.tenant,
        edge: reply.edge,
        name: reply.name,
        hub,
        credentials: believe(reply.credentials, &ca_pem, None, now)?,
        binding: reply.binding,
        default_environment: reply.default_environment,
        joined_at: now,
    };
    // Before the identity: an edge that has joined has its choice.
    options.offline_restart.store(directory)?;
    identity.store(directory)?;
    let warnings = warnings(options, &identity, &keys.keeper);
    Ok(Joined { identity, warnings })
}

/// The edge's keys, with the keeper that was chosen; those of an attempt before that chose another move to it.
fn kept(options: &JoinOptions) -> Result<EdgeKeys, JoinError> {
    let directory = &options.directory;
    keys::settle(directory)?;
    let before = keys::keeper(directory)?;
    let keeper = match (options.key, &before) {
        // Of an attempt before, with an item that is this edge's already.
        (KeyChoice::Keychain, Some(keeper @ Keeper::Keychain(_))) => keeper.clone(),
        (choice, before) => choice.keeper(directory, before.as_ref()).map_err(KeyError::from)?,
    };
    options.offline_restart.check(&keeper)?;
    let keys = EdgeKeys::load_or_keep(directory, &keeper)?;
    if keys.keeper == keeper { Ok(keys) } else { Ok(EdgeKeys::rekey(directory, &keeper)?) }
}

fn warnings(options: &JoinOptions, identity: &EdgeIdentity, keeper: &Keeper) -> Vec<String> {
    let nothing_better = options.key == KeyChoice::Auto && keeper.is_on_disk();
    let why = if nothing_better { "no TPM and no systemd-creds works here; " } else { "" };
    let mut warnings = vec![format!("{why}{}", keeper.explained())];
    warnings.push(options.offline_restart.explained().to_owned());
    let received = &identity.binding.namespaces;
    let missing = options
        .namespaces
        .iter()
        .filter(|wanted| !received.is_empty() && !received.iter().any(|subtree| subtree.covers(wanted)));
    warnings.extend(missing.map(|wanted| {
        format!("the join token does not give this edge namespace {}; make one that does", wanted.as_str())
    }));
    if options.name.as_ref().is_some_and(|name| *name != identity.name) {
        warnings.push(format!("the join token names this edge {}", identity.name));
    }
    warnings
}

/// What a renewal came to.
pub(crate) enum Renewed {
    Credentials(Box<StoredCredentials>),
    /// The hub has removed this edge, and signed that.
    Removed,
}

/// A new certificate for the same keys, over a connection that shows none: the old one may have expired long ago.
///
/// # Errors
/// When the hub cannot be reached or refuses.
pub(crate) async fn renew(
    identity: &EdgeIdentity,
    keys: &EdgeKeys,
    now: UnixMillis,
) -> Result<Renewed, JoinError> {
    let credentials = &identity.credentials;
    let trust = Trust::Ca { pem: credentials.ca_pem.clone() };
    let mut client =
        Client::connect(&Dial { address: address(&identity.hub)?, trust, identity: None }).await?;
    let nonce = client.challenge(identity.edge).await?.nonce;
    let (_, sealing_key) = keys.sealing_pair();
    let proof = keys.sign(&renew_message(&nonce, identity.edge.0, &sealing_key))?;
    let request = RenewRequest {
        edge: identity.edge,
        nonce: nonce.clone(),
        sealing_key: Bytes::copy_from_slice(&sealing_key),
        proof: proof.into(),
    };
    let stated_before = Some(credentials.keys_stated_at);
    match client.renew(request).await? {
        RenewReply::Renewed(sent) => {
            let credentials = believe(sent, &credentials.ca_pem, stated_before, now)?;
            Ok(Renewed::Credentials(Box::new(credentials)))
        }
        RenewReply::Removed(removal) => {
            let (body, signature) = (&removal.key_statement, &removal.key_statement_signature);
            let (keys, _) = signers(&credentials.ca_pem, body, signature, stated_before)?;
            verify_removal(&removal.statement, &keys, &identity.tenant, identity.edge, &nonce)
                .map_err(JoinError::Removal)?;
            Ok(Renewed::Removed)
        }
    }
}

/// Which keys the hub signs with, as its CA says, and when that was said.
fn signers(
    ca_pem: &str,
    body: &[u8],
    signature: &[u8],
    stated_before: Option<UnixMillis>,
) -> Result<(VerificationKeys, UnixMillis), JoinError> {
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| InvalidStatement::Certificate)?;
    let statement = KeyStatement::verify(&ca, body, signature)?;
    if stated_before.is_some_and(|before| statement.issued_at < before) {
        return Err(JoinError::OldStatement);
    }
    let keys = VerificationKeys::new(statement.keys.iter().map(|key| (key.id(), *key.as_bytes())));
    Ok((keys, statement.issued_at))
}

/// Checks what the hub sent against the CA that was verified, and reads it.
fn believe(
    sent: Credentials,
    ca_pem: &str,
    stated_before: Option<UnixMillis>,
    now: UnixMillis,
) -> Result<StoredCredentials, JoinError> {
    if fingerprint(&sent.ca_pem)? != fingerprint(ca_pem)? {
        return Err(JoinError::CaChanged);
    }
    let (keys, stated_at) =
        signers(ca_pem, &sent.key_statement, &sent.key_statement_signature, stated_before)?;
    let certificate = sent.certificate_chain_pem;
    Ok(StoredCredentials::new(ca_pem.to_owned(), certificate, keys, stated_at, now)?)
}

/// Whom the edge connects to, and as whom.
///
/// # Errors
/// When the hub's address cannot be read.
pub(crate) fn dial(identity: &EdgeIdentity, keys: &EdgeKeys) -> Result<Dial, JoinError> {
    let credentials = &identity.credentials;
    Ok(Dial {
        address: address(&identity.hub)?,
        trust: Trust::Ca { pem: credentials.ca_pem.clone() },
        identity: Some(Identity { chain_pem: credentials.certificate_pem.clone(), key_pem: keys.tls_pem() }),
    })
}

/// Whether an edge has left here whose keychain was locked: what opened its keys is still there.
pub fn is_half_left(directory: &Path) -> bool {
    !EdgeIdentity::exists(directory) && !wipe::is_pending(directory) && keeper::has_items(directory)
}

/// Forgets the hub: keys, identity and replica are destroyed, in an order that never leaves a replica that looks joined. Writes that
/// the hub has not admitted go with it, so the caller asks first.
///
/// # Errors
/// When a daemon is running here, or a file cannot be removed.
pub fn leave(directory: &Path) -> Result<(), JoinError> {
    let lock = DirectoryLock::take(directory)?;
    wipe::destroy_all(directory)?;
    drop(lock);
    Ok(())
}

pub(crate) fn gone(path: &Path, removed: io::Result<()>) -> Result<(), JoinError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(path, error)),
        _ => Ok(()),
    }
}

pub(crate) fn file(path: &Path, source: io::Error) -> JoinError {
    JoinError::File { path: path.to_owned(), source }
}

/// Makes the edge's directory for its user and group alone.
pub(crate) fn make_private(directory: &Path) -> Result<(), JoinError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .map_err(|source| file(directory, source))
}

fn read_token(path: &Path) -> Result<JoinToken, JoinError> {
    let length = fs::metadata(path).map_err(|source| file(path, source))?.len();
    if length > TOKEN_FILE_BYTES_MAX {
        return Err(InvalidJoinToken::Damaged.into());
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|source| file(path, source))?);
    Ok(JoinToken::parse(&text)?)
}

fn trust(options: &JoinOptions, token: &JoinToken) -> Result<Trust, JoinError> {
    let Some(path) = &options.ca_file else { return Ok(Trust::Fingerprint(token.ca_fingerprint)) };
    let pem = fs::read_to_string(path).map_err(|source| file(path, source))?;
    if fingerprint(&pem)? != token.ca_fingerprint {
        return Err(JoinError::OtherCa(path.clone()));
    }
    Ok(Trust::Ca { pem })
}

/// `HOST:PORT` of `https://HOST:PORT`.
pub(crate) fn address(hub: &str) -> Result<String, JoinError> {
    let wrong = || JoinError::Address(hub.to_owned());
    let uri: http::Uri = hub.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(wrong)?;
    authority.port_u16().ok_or_else(wrong)?;
    Ok(authority.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use llm_config_proto::join_token::JoinSecret;

    use super::*;

    #[test]
    fn only_an_address_with_a_port_is_connected_to() {
        assert_eq!(address("https://hub.example.com:8443").unwrap(), "hub.example.com:8443");
        assert_eq!(address("https://[::1]:1/").unwrap(), "[::1]:1");
        for wrong in ["http://h:1", "h:1", "https://h", ""] {
            assert!(matches!(address(wrong), Err(JoinError::Address(_))), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_hub_that_is_not_there_leaves_keys_for_the_next_attempt() {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        let token = JoinToken {
            hub: "https://127.0.0.1:1".into(),
            ca_fingerprint: [1; 32],
            secret: JoinSecret::new([2; 32]),
        };
        fs::write(&token_file, &*token.to_text()).unwrap();
        let data = directory.path().join("data");
        let options = JoinOptions { directory: data.clone(), token_file, ..JoinOptions::default() };
        let refused = join(&options).await.unwrap_err();
        assert!(refused.may_pass(), "{refused}");
        let made = EdgeKeys::load(&data).unwrap().public_key();
        join(&options).await.unwrap_err();
        assert_eq!(EdgeKeys::load(&data).unwrap().public_key(), made);
        leave(&data).unwrap();
        assert!(EdgeKeys::load(&data).is_err());
    }

    #[tokio::test]
    async fn a_token_that_is_none_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        fs::write(&token_file, "lcm_something").unwrap();
        let options =
            JoinOptions { directory: directory.path().join("data"), token_file, ..JoinOptions::default() };
        assert!(matches!(join(&options).await, Err(JoinError::Token(InvalidJoinToken::Prefix))));
    }
}
