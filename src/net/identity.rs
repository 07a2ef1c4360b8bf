//! Who a node is, cryptographically: mutual TLS with certificates of one authority.
//!
//! A seed is dialled before its name is known. So the chain is verified during the handshake and the name after it, from
//! the certificate itself ([`names_of`]); what a peer claims later is held against those names.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};

pub use super::credentials::{ClusterKey, Credentials, IdentityError};
use super::{
    certificates::{Material, names_in},
    credentials::KEY_BYTES,
    wire::ALPN,
};
use crate::key::NodeName;

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
        Self::from_material(material).map_err(|error| IdentityError::Tls(error.to_string()))
    }

    fn from_material(material: Material) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(material.roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let servers = Arc::new(ChainVerifier { roots, provider: provider.clone() });
        let shown =
            ShownCertificate { chain: material.chain.clone(), as_server: servers.clone(), as_client: clients.clone() };
        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(material.chain.clone(), material.key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // Every connection proves its certificate anew: no resumption, no early data.
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(servers)
            .with_client_auth_cert(material.chain, material.key)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();

        let general = |error: quinn::crypto::rustls::NoInitialCipherSuite| rustls::Error::General(error.to_string());
        Ok(Self {
            server: Arc::new(QuicServerConfig::try_from(server).map_err(general)?),
            client: Arc::new(QuicClientConfig::try_from(client).map_err(general)?),
            reset_key: material.reset_key,
            shown,
        })
    }
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

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ED25519};

    use super::*;
    use crate::net::certificates::authority_params;

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
