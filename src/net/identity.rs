//! Who a node is, cryptographically: from one shared secret, or from PEM files, to mutual TLS.
//!
//! A [`ClusterKey`] is 32 random bytes. Every node derives the same certificate authority from it
//! (HKDF-SHA256, RFC 5869, to an Ed25519 seed) and signs itself a certificate that carries its own name, so knowing the
//! secret *is* membership and nothing has to be distributed but the secret. Those who run a PKI bring PEM files instead:
//! the certificate's DNS names then say which node names it may use.
//!
//! A seed is dialled before its name is known. So the chain is verified during the handshake and the name after it, from
//! the certificate itself ([`names_of`]); what a peer claims later is held against those names.

use std::{fmt, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use hkdf::Hkdf;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519};
use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::Sha256;

use super::wire::ALPN;
use crate::key::NodeName;

const KEY_BYTES: usize = 32;

/// The secret that makes a machine a member. Printed and read as 64 hexadecimal digits; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_BYTES]);

impl ClusterKey {
    /// A fresh key from the operating system's generator.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a secret comes from the operating system and nowhere else")]
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// The text is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let mut bytes = [0; KEY_BYTES];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| IdentityError::ClusterKey)?;
        Ok(Self(bytes))
    }

    /// The text form. Keep it where you keep passwords.
    #[must_use]
    pub fn to_text(&self) -> String {
        hex::encode(self.0)
    }

    fn derive(&self, purpose: &str) -> [u8; KEY_BYTES] {
        let mut output = [0; KEY_BYTES];
        Hkdf::<Sha256>::new(Some(b"datad-gossip"), &self.0)
            .expand(purpose.as_bytes(), &mut output)
            .expect("32 bytes are a valid HKDF-SHA256 output length");
        output
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// How a node proves who it is.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A certificate made on the spot from the shared secret.
    ClusterKey(ClusterKey),
    /// Files of the operator's own PKI, PEM. Every node's certificate must be valid as server *and* client.
    Pem {
        /// The node's certificate, then intermediates.
        certificate: PathBuf,
        /// Its private key, PKCS#8.
        key: PathBuf,
        /// The authorities whose certificates are members.
        authority: PathBuf,
    },
}

/// Why credentials are no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is no cluster key.
    #[error("a cluster key is 64 hexadecimal digits; make one with `datad-gossip keygen`")]
    ClusterKey,
    /// A PEM file cannot be read or holds nothing useful.
    #[error("cannot read {path}: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate is for other names.
    #[error("the certificate is for {names:?}, not for this node's name {name}")]
    OtherName {
        /// What the node is to be called.
        name: NodeName,
        /// What the certificate says.
        names: Vec<String>,
    },
    /// TLS does not accept the material.
    #[error("the certificate or key cannot be used: {0}")]
    Tls(String),
}

/// TLS configurations of one node, ready for quinn.
pub(crate) struct Identity {
    pub(crate) server: Arc<QuicServerConfig>,
    pub(crate) client: Arc<QuicClientConfig>,
    /// Key of the stateless resets. Stable over restarts where a cluster key is used, so that peers of a node that was
    /// killed notice at its first packet after the restart instead of at the idle timeout.
    pub(crate) reset_key: [u8; KEY_BYTES],
    pub(crate) shown: ShownCertificate,
}

/// The certificate that a node shows to others, and how they look at it.
pub(crate) struct ShownCertificate {
    chain: Vec<CertificateDer<'static>>,
    as_server: Arc<ChainVerifier>,
    as_client: Arc<dyn ClientCertVerifier>,
}

impl ShownCertificate {
    /// Why members that trust the same authority reject the certificate at `unix_ms`; `None` if they accept it.
    pub(crate) fn rejection(&self, unix_ms: u64) -> Option<String> {
        let now = UnixTime::since_unix_epoch(Duration::from_millis(unix_ms));
        let (own, intermediates) = self.chain.split_first()?;
        let any_name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let as_server = self.as_server.verify_server_cert(own, intermediates, &any_name, &[], now).map(drop);
        let as_client = || self.as_client.verify_client_cert(own, intermediates, now).map(drop);
        as_server.and_then(|()| as_client()).err().map(|error| match error {
            rustls::Error::InvalidCertificate(reason) => reason.to_string(),
            other => other.to_string(),
        })
    }
}

impl Identity {
    /// Makes the identity of the node `name`.
    pub(crate) fn new(name: &NodeName, credentials: &Credentials) -> Result<Self, IdentityError> {
        let material = match credentials {
            Credentials::ClusterKey(key) => Material::derive(name, key)?,
            Credentials::Pem { certificate, key, authority } => Material::load(name, certificate, key, authority)?,
        };
        material.into_identity().map_err(|error| IdentityError::Tls(error.to_string()))
    }
}

/// Certificates and key before they become TLS configurations.
struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
    reset_key: [u8; KEY_BYTES],
}

impl Material {
    fn derive(name: &NodeName, secret: &ClusterKey) -> Result<Self, IdentityError> {
        let tls = |error: rcgen::Error| IdentityError::Tls(error.to_string());
        let authority_key = ed25519(&secret.derive("certificate authority")).map_err(tls)?;
        let authority_params = authority_params();
        let authority = authority_params.self_signed(&authority_key).map_err(tls)?;
        let issuer = Issuer::from_params(&authority_params, &authority_key);

        let own_key = KeyPair::generate_for(&PKCS_ED25519).map_err(tls)?;
        let mut params = CertificateParams::new(vec![name.to_string()]).map_err(tls)?;
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        (params.not_before, params.not_after) = any_time();
        let own = params.signed_by(&own_key, &issuer).map_err(tls)?;

        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).map_err(|error| IdentityError::Tls(error.to_string()))?;
        Ok(Self {
            chain: vec![own.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own_key.serialize_der())),
            roots,
            reset_key: secret.derive(&format!("stateless reset {name}")),
        })
    }

    fn load(name: &NodeName, certificate: &PathBuf, key: &PathBuf, authority: &PathBuf) -> Result<Self, IdentityError> {
        let bad = |path: &PathBuf, reason: String| IdentityError::Pem { path: path.clone(), reason };
        let chain = certificates(certificate)?;
        let own_key = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(authority)? {
            roots.add(root).map_err(|error| bad(authority, error.to_string()))?;
        }
        let names = names_in(&chain[0]);
        if !names.iter().any(|found| found == name.as_str()) {
            return Err(IdentityError::OtherName { name: name.clone(), names });
        }
        let reset_key = ClusterKey::generate().0;
        Ok(Self { chain, key: own_key, roots, reset_key })
    }

    fn into_identity(self) -> Result<Identity, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(self.roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let servers = Arc::new(ChainVerifier { roots, provider: provider.clone() });
        let shown =
            ShownCertificate { chain: self.chain.clone(), as_server: servers.clone(), as_client: clients.clone() };
        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // Every connection proves its certificate anew: no resumption, no early data.
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(servers)
            .with_client_auth_cert(self.chain, self.key)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();

        let general = |error: quinn::crypto::rustls::NoInitialCipherSuite| rustls::Error::General(error.to_string());
        Ok(Identity {
            server: Arc::new(QuicServerConfig::try_from(server).map_err(general)?),
            client: Arc::new(QuicClientConfig::try_from(client).map_err(general)?),
            reset_key: self.reset_key,
            shown,
        })
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bad = |reason: String| IdentityError::Pem { path: path.clone(), reason };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?.collect();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad("it holds no certificate".into())) } else { Ok(found) }
}

/// An Ed25519 key pair from its seed, by way of PKCS#8 (RFC 8410).
fn ed25519(seed: &[u8; KEY_BYTES]) -> Result<KeyPair, rcgen::Error> {
    const PKCS8_PREFIX: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let der = [PKCS8_PREFIX.as_slice(), seed].concat();
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(der))
}

/// The same on every node, so that all of them sign under one authority.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "datad-gossip cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serial_number = Some(1u64.into());
    (params.not_before, params.not_after) = any_time();
    params
}

/// The secret does not expire, so neither do certificates made from it; machines may disagree about the date.
fn any_time() -> (time::OffsetDateTime, time::OffsetDateTime) {
    (rcgen::date_time_ymd(2000, 1, 1), rcgen::date_time_ymd(4000, 1, 1))
}

/// Verifies that a server's certificate comes from the authority, whatever name it carries.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The DNS names in the certificate that the peer of `connection` has proved to own.
pub(crate) fn names_of(connection: &quinn::Connection) -> Vec<String> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .and_then(|chain| chain.first().map(names_in))
        .unwrap_or_default()
}

fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
    webpki::EndEntityCert::try_from(certificate)
        .map(|parsed| parsed.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Believes every server, for tests of what the server believes.
    #[derive(Debug)]
    pub(in crate::net) struct Credulous;

    impl ServerCertVerifier for Credulous {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            _ocsp_response: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    }

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    #[test]
    fn a_cluster_key_survives_its_text_form_and_is_never_printed() {
        let key = ClusterKey::generate();
        assert_eq!(ClusterKey::parse(&format!(" {}\n", key.to_text())).unwrap(), key);
        assert!(!format!("{key:?}").contains(&key.to_text()));
        assert!(ClusterKey::parse("abc").is_err());
    }

    #[test]
    fn all_nodes_derive_the_same_authority_from_one_secret() {
        let secret = ClusterKey([7; KEY_BYTES]);
        let one = Material::derive(&name("one"), &secret).unwrap();
        let two = Material::derive(&name("two"), &secret).unwrap();
        assert_eq!(one.roots.roots, two.roots.roots);
        assert_eq!(names_in(&one.chain[0]), ["one"]);
        let other = Material::derive(&name("one"), &ClusterKey([8; KEY_BYTES])).unwrap();
        assert_ne!(one.roots.roots, other.roots.roots);
    }

    #[test]
    fn a_certificate_for_another_name_is_refused_before_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["other".into()]).unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let credentials = Credentials::Pem { certificate: certificate.clone(), key, authority: certificate };
        assert!(matches!(Identity::new(&name("mine"), &credentials), Err(IdentityError::OtherName { .. })));
        assert!(Identity::new(&name("other"), &credentials).is_ok());
    }

    #[test]
    fn a_certificate_is_rejected_before_and_after_its_time_and_by_another_authority() {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key, authority, stranger] =
            ["cert.pem", "key.pem", "ca.pem", "stranger.pem"].map(|file| folder.path().join(file));
        let signer = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let of_authority = authority_params();
        std::fs::write(&authority, of_authority.self_signed(&signer).unwrap().pem()).unwrap();
        let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        std::fs::write(&stranger, of_authority.self_signed(&other).unwrap().pem()).unwrap();
        let own_key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(vec!["mine".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(1970, 1, 11), rcgen::date_time_ymd(1970, 1, 21));
        let own = params.signed_by(&own_key, &Issuer::from_params(&of_authority, &signer)).unwrap();
        std::fs::write(&certificate, own.pem()).unwrap();
        std::fs::write(&key, own_key.serialize_pem()).unwrap();

        let shown = |authority: &PathBuf| {
            let (certificate, key, authority) = (certificate.clone(), key.clone(), authority.clone());
            Identity::new(&name("mine"), &Credentials::Pem { certificate, key, authority }).unwrap().shown
        };
        let mine = shown(&authority);
        assert!(mine.rejection(9 * DAY_MS).unwrap().contains("not valid yet"));
        // The authority itself is from 2000; trust anchors have no age (RFC 5280, section 6.1.1).
        assert_eq!(mine.rejection(15 * DAY_MS), None);
        assert!(mine.rejection(21 * DAY_MS).unwrap().contains("expired"));
        assert!(shown(&stranger).rejection(15 * DAY_MS).is_some());
    }
}
