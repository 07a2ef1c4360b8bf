//! Certificates, from the secret of the cluster or from PEM files.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};

use super::credentials::{ClusterKey, IdentityError, KEY_BYTES};
use crate::key::NodeName;

/// Certificates and key before they become TLS configurations.
pub(super) struct Material {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) roots: RootCertStore,
    pub(super) reset_key: [u8; KEY_BYTES],
}

impl Material {
    pub(super) fn derive(name: &NodeName, secret: &ClusterKey) -> Result<Self, IdentityError> {
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

    pub(super) fn load(
        name: &NodeName,
        certificate: &PathBuf,
        key: &PathBuf,
        authority: &PathBuf,
    ) -> Result<Self, IdentityError> {
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
pub(super) fn authority_params() -> CertificateParams {
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

/// The DNS names in a certificate.
pub(super) fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
    webpki::EndEntityCert::try_from(certificate)
        .map(|parsed| parsed.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_nodes_derive_the_same_authority_from_one_secret() {
        let secret = ClusterKey([7; KEY_BYTES]);
        let one = Material::derive(&NodeName::new("one").unwrap(), &secret).unwrap();
        let two = Material::derive(&NodeName::new("two").unwrap(), &secret).unwrap();
        assert_eq!(one.roots.roots, two.roots.roots);
        assert_eq!(names_in(&one.chain[0]), ["one"]);
        let other = Material::derive(&NodeName::new("one").unwrap(), &ClusterKey([8; KEY_BYTES])).unwrap();
        assert_ne!(one.roots.roots, other.roots.roots);
    }
}
