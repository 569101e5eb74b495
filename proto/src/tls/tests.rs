//! Handshakes over real sockets, with certificates made for the test.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair,
    SanType,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt;
use zeroize::Zeroizing;

use super::*;

/// A CA with an identity for a hub and one for an edge.
pub(crate) struct Authority {
    pub(crate) ca_pem: String,
    pub(crate) hub: Identity,
    pub(crate) edge: Identity,
}

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "test CA");
    let key = KeyPair::generate().unwrap();
    let ca_pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let issue = |san: SanType, usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.subject_alt_names = vec![san];
        params.extended_key_usages = vec![usage];
        let leaf = params.signed_by(&key, &issuer).unwrap().pem();
        Identity { chain_pem: format!("{leaf}{ca_pem}"), key_pem: Zeroizing::new(key.serialize_pem()) }
    };
    let hub = issue(SanType::DnsName(HUB_SERVER_NAME.try_into().unwrap()), Usage::ServerAuth);
    let spiffe = "spiffe://llm-config/t/default/edge/00000000-0000-0000-0000-000000000001";
    let edge = issue(SanType::URI(spiffe.try_into().unwrap()), Usage::ClientAuth);
    Authority { hub, edge, ca_pem }
}

async fn handshake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut connections = accept_loop(listener, watch::channel(server).1);
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = HUB_SERVER_NAME.try_into().unwrap();
    let connected = TlsConnector::from(client).connect(name, tcp).await;
    let stream = connected.map_err(|error| error.to_string())?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    connections.next().await.unwrap().unwrap();
    Ok(())
}

#[tokio::test]
async fn a_ca_is_trusted_by_its_certificate_or_its_fingerprint_and_no_other_is() {
    let (ours, other) = (authority(), authority());
    let server = server_config(&ours.hub, Some(&ours.ca_pem), Alpn::H2).unwrap();
    let client = |trust: Trust| client_config(&trust, None, Alpn::H2).unwrap();
    for (authority, trusted) in [(&ours, true), (&other, false)] {
        let print = fingerprint(&authority.ca_pem).unwrap();
        let by_ca = handshake(server.clone(), client(Trust::Ca { pem: authority.ca_pem.clone() })).await;
        let by_print = handshake(server.clone(), client(Trust::Fingerprint(print))).await;
        assert_eq!((by_ca.is_ok(), by_print.is_ok()), (trusted, trusted));
    }
}

#[tokio::test]
async fn the_ca_is_found_in_the_servers_chain_as_it_was_written() {
    let ours = authority();
    let chain = certificates("chain", &ours.hub.chain_pem).unwrap();
    let trust = Trust::Fingerprint(fingerprint(&ours.ca_pem).unwrap());
    let found = trust.ca_pem(&chain).unwrap();
    assert_eq!(certificates("found", &found).unwrap(), certificates("written", &ours.ca_pem).unwrap());
}

#[tokio::test]
async fn older_versions_are_refused() {
    let ours = authority();
    let server = server_config(&ours.hub, None, Alpn::H2).unwrap();
    let mut old = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots(&ours.ca_pem).unwrap())
        .with_no_client_auth();
    old.alpn_protocols = Alpn::H2.protocols();
    let refused = handshake(server, Arc::new(old)).await.unwrap_err();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
}
