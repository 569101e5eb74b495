//! An edge under a test's control: enrolled properly, and free to say what it likes.

use bytes::Bytes;
use llm_config_proto::join_token::JoinToken;
use llm_config_proto::key_statement::KeyStatement;
use llm_config_proto::possession;
use llm_config_proto::sync::{Client, Dial, EnrollReply, EnrollRequest, HubFrames};
use llm_config_proto::tls::{Identity, Trust};
use llm_config_shared::name::EdgeName;
use llm_config_shared::replication::frame::{EdgeFrame, Hello, HubFrame, PROTOCOL, Refusal, Welcome};
use llm_config_shared::segment::VerificationKeys;
use llm_config_shared::vector::Vector;
use llm_config_shared::write::{Answer, Write};
use llm_config_tests::hub::Hub;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// The base point: a public key like any other, though not a secret one.
pub(super) const SEALING_KEY: [u8; 32] = {
    let mut key = [0; 32];
    key[0] = 9;
    key
};

/// The private key of an edge, to sign what it should not.
pub(super) struct Keys {
    pub(super) pair: rcgen::KeyPair,
    signer: EcdsaKeyPair,
    random: SystemRandom,
}

impl Keys {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let pair = rcgen::KeyPair::generate().unwrap();
        let der = pair.serialize_der();
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &random).unwrap();
        Self { pair, signer, random }
    }

    pub(super) fn public(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(&self.pair)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Bytes {
        self.signer.sign(&self.random, message).unwrap().as_ref().to_vec().into()
    }
}

pub(super) fn join_request(
    token: &JoinToken,
    keys: &Keys,
    signer: &Keys,
    name: Option<&str>,
) -> EnrollRequest {
    let public_key = keys.public();
    let proof = signer.sign(&possession::join_message(&token.secret, &public_key, &SEALING_KEY));
    EnrollRequest {
        secret: token.secret.clone(),
        public_key: public_key.into(),
        sealing_key: SEALING_KEY.to_vec().into(),
        requested_name: name.map(|name| EdgeName::parse(name).unwrap()),
        proof,
    }
}

pub(super) fn stranger(hub: &Hub, token: &JoinToken) -> Dial {
    Dial { address: hub.sync.to_string(), trust: Trust::Fingerprint(token.ca_fingerprint), identity: None }
}

/// An enrolled edge under our control.
pub(super) struct Rogue {
    pub(super) keys: Keys,
    pub(super) reply: EnrollReply,
    pub(super) dial: Dial,
}

impl Rogue {
    pub(super) async fn enrol(hub: &Hub, token: &str) -> Self {
        let token = JoinToken::parse(token).unwrap();
        let keys = Keys::new();
        let mut client = Client::connect(&stranger(hub, &token)).await.unwrap();
        let reply = client.enroll(join_request(&token, &keys, &keys, Some("root"))).await.unwrap();
        let identity = Identity {
            chain_pem: reply.credentials.certificate_chain_pem.clone(),
            key_pem: keys.pair.serialize_pem().into(),
        };
        let trust = Trust::Ca { pem: reply.credentials.ca_pem.clone() };
        let dial = Dial { address: hub.sync.to_string(), trust, identity: Some(identity) };
        Self { keys, reply, dial }
    }

    /// For `app` in production, writing below `edges/rogue`.
    pub(super) async fn of_production(hub: &Hub) -> Self {
        let body = json!({"name": "rogue", "namespaces": ["app"], "environments": ["production"], "write": ["edges/rogue"]});
        Self::enrol(hub, &hub.join_token(body).await).await
    }

    pub(super) async fn session(&self, floor: Vector) -> Session {
        let mut client = Client::connect(&self.dial).await.unwrap();
        let (send, frames) = mpsc::channel(8);
        let frames = client.stream(ReceiverStream::new(frames)).await.unwrap();
        let hello = Hello { protocol: PROTOCOL, incarnation: 1, session: 1, floor, pending: 0 };
        send.send(EdgeFrame::Hello(hello)).await.unwrap();
        Session { send, frames, _client: client }
    }

    pub(super) fn verification(&self) -> VerificationKeys {
        let credentials = &self.reply.credentials;
        let ca = rustls::pki_types::pem::PemObject::from_pem_slice(credentials.ca_pem.as_bytes());
        let ca: rustls::pki_types::CertificateDer<'_> = ca.unwrap();
        let statement =
            KeyStatement::verify(&ca, &credentials.key_statement, &credentials.key_statement_signature)
                .unwrap();
        VerificationKeys::new(statement.keys.iter().map(|key| (key.id(), *key.as_bytes())))
    }
}

pub(super) struct Session {
    pub(super) send: mpsc::Sender<EdgeFrame>,
    pub(super) frames: HubFrames,
    _client: Client,
}

impl Session {
    pub(super) async fn say(&self, frame: EdgeFrame) {
        self.send.send(frame).await.unwrap();
    }

    /// The first frame of a kind; what else comes before it is passed over.
    pub(super) async fn hear<T>(&mut self, wanted: impl Fn(&HubFrame) -> Option<T>) -> T {
        loop {
            let frame = self.frames.next().await.expect("the hub says more").expect("in frames");
            if let Some(found) = wanted(&frame) {
                return found;
            }
            assert!(!matches!(frame, HubFrame::Refused { .. }), "{frame:?}");
        }
    }

    pub(super) async fn welcome(&mut self) -> Welcome {
        self.hear(|frame| if let HubFrame::Welcome(welcome) = frame { Some(welcome.clone()) } else { None })
            .await
    }

    pub(super) async fn refusal(&mut self) -> Refusal {
        self.hear(
            |frame| if let HubFrame::Refused { refusal, .. } = frame { Some(refusal.clone()) } else { None },
        )
        .await
    }

    pub(super) async fn upload(&mut self, batch: u64, writes: Vec<Write>) -> Vec<Answer> {
        self.say(EdgeFrame::Upload { batch, writes }).await;
        let answered = |frame: &HubFrame| match frame {
            HubFrame::UploadResult { batch: number, answers } if *number == batch => Some(answers.clone()),
            _ => None,
        };
        self.hear(answered).await
    }
}
