//! Makes certificates from requests. Upstream: pkg/controller/certificates/authority.
//!
//! The certificate is written here: subject and key of a request go into it byte by byte as they came, whatever they are.

use super::der::{
    BIT_STRING, BOOLEAN, GENERALIZED_TIME, NULL, OCTET_STRING, SEQUENCE, UTC_TIME, explicit, identifier,
    implicit, named_bits, positive, value,
};
use super::request::Request;
use api::Timestamp;
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use rcgen::{KeyPair, SigningKey as _};
use std::collections::BTreeSet;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The longest life of a certificate. Upstream: `--cluster-signing-duration`.
const LIFE_MAX: SignedDuration = SignedDuration::from_hours(365 * 24);
/// The shortest: twice the time that clocks may disagree.
const LIFE_MIN: SignedDuration = SignedDuration::from_mins(10);
/// A certificate is valid from a little earlier, for clocks that disagree.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// A life below this is not shortened by that time.
const SHORT: SignedDuration = SignedDuration::from_hours(8);
/// Bytes of a serial number: none is used twice.
pub(super) const SERIAL_BYTES: usize = 16;

/// Bits of KeyUsage (RFC 5280, 4.2.1.3) by the names that requests use.
const KEY_USAGES: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Purposes of ExtendedKeyUsage (RFC 5280, 4.2.1.12) by the names that requests use.
const PURPOSES: [(&str, &[u32]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

/// Signs as one certificate authority.
pub(crate) struct Authority {
    key: KeyPair,
    /// DER: how it signs.
    algorithm: Vec<u8>,
    /// DER: who it is.
    subject: Vec<u8>,
    /// Its key's identifier, by which a certificate names it.
    key_id: Option<Vec<u8>>,
    not_after: Timestamp,
}

/// An authority cannot be used, or cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is no PEM certificate.
    #[error("the authority's certificate cannot be read")]
    Certificate,
    /// The key is none that can sign.
    #[error("the authority's key cannot be used")]
    Key(#[from] rcgen::Error),
    /// ECDSA on P-256 or P-384, RSA and Ed25519 are known.
    #[error("the authority's key has an algorithm that is not known")]
    Algorithm,
    /// What it would sign would not be valid.
    #[error("the authority's certificate has expired on {not_after}")]
    Expired {
        /// When it did.
        not_after: Timestamp,
    },
    /// No random numbers.
    #[error("there are no random numbers")]
    Random,
}

fn algorithm(key: &KeyPair) -> Result<Vec<u8>, AuthorityError> {
    let own = key.algorithm();
    let of = |arcs: &[u32], parameters: &[u8]| value(SEQUENCE, &[&identifier(arcs), parameters]);
    if own == &rcgen::PKCS_ECDSA_P256_SHA256 {
        Ok(of(&[1, 2, 840, 10045, 4, 3, 2], &[]))
    } else if own == &rcgen::PKCS_ECDSA_P384_SHA384 {
        Ok(of(&[1, 2, 840, 10045, 4, 3, 3], &[]))
    } else if own == &rcgen::PKCS_RSA_SHA256 {
        Ok(of(&[1, 2, 840, 113549, 1, 1, 11], &value(NULL, &[])))
    } else if own == &rcgen::PKCS_ED25519 {
        Ok(of(&[1, 3, 101, 112], &[]))
    } else {
        Err(AuthorityError::Algorithm)
    }
}

fn time(at: Timestamp) -> Vec<u8> {
    let at = at.to_zoned(TimeZone::UTC);
    // RFC 5280, 4.1.2.5: two digits of the year until 2049.
    match at.year() {
        1950..=2049 => value(UTC_TIME, &[at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()]),
        _ => value(GENERALIZED_TIME, &[at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()]),
    }
}

fn extension(arcs: &[u32], critical: bool, content: &[u8]) -> Vec<u8> {
    let critical = if critical { value(BOOLEAN, &[&[0xff]]) } else { Vec::new() };
    value(SEQUENCE, &[&identifier(arcs), &critical, &value(OCTET_STRING, &[content])])
}

/// How long a certificate lives for which a request asks for so many seconds.
pub(super) fn life(expiration_seconds: Option<i32>) -> SignedDuration {
    let asked = expiration_seconds.map_or(LIFE_MAX, |seconds| SignedDuration::from_secs(seconds.into()));
    asked.clamp(LIFE_MIN, LIFE_MAX)
}

impl Authority {
    /// From the authority's certificate and key, both PEM.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn new(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let (_, block) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes())
            .map_err(|_| AuthorityError::Certificate)?;
        let (_, certificate) =
            X509Certificate::from_der(&block.contents).map_err(|_| AuthorityError::Certificate)?;
        let key = KeyPair::from_pem(key_pem)?;
        let key_id = certificate.extensions().iter().find_map(|own| match own.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp())
            .map_err(|_| AuthorityError::Certificate)?;
        Ok(Self {
            algorithm: algorithm(&key)?,
            subject: certificate.subject().as_raw().to_vec(),
            key_id,
            not_after,
            key,
        })
    }

    /// Signs a request: PEM of the certificate. `serial` must be random.
    ///
    /// # Errors
    /// The authority has expired, or its key does not sign.
    pub(super) fn sign(
        &self,
        request: &Request,
        usages: &[String],
        life: SignedDuration,
        serial: [u8; SERIAL_BYTES],
        now: Timestamp,
    ) -> Result<Vec<u8>, AuthorityError> {
        if now >= self.not_after {
            return Err(AuthorityError::Expired { not_after: self.not_after });
        }
        let end = if life < SHORT { now + life } else { now + life - BACKDATE };
        let validity = value(SEQUENCE, &[&time(now - BACKDATE), &time(end.min(self.not_after))]);
        let to_sign = value(
            SEQUENCE,
            &[
                // Version 3.
                &value(explicit(0), &[&positive(&[2])]),
                // The first bit stays clear: 20 bytes and a positive number are the limit.
                &positive(&serial),
                &self.algorithm,
                &self.subject,
                &validity,
                &request.subject,
                &request.public_key,
                &value(explicit(3), &[&value(SEQUENCE, &[&self.extensions(request, usages)])]),
            ],
        );
        let signature = self.key.sign(&to_sign)?;
        let signature = value(BIT_STRING, &[&[0], &signature]);
        let certificate = value(SEQUENCE, &[&to_sign, &self.algorithm, &signature]);
        Ok(pem(&certificate))
    }

    fn extensions(&self, request: &Request, usages: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        let has = |name: &str| usages.iter().any(|usage| usage == name);
        let bits: Vec<u8> = KEY_USAGES.iter().filter(|(name, _)| has(name)).map(|(_, bit)| *bit).collect();
        if !bits.is_empty() {
            out.extend(extension(&[2, 5, 29, 15], true, &named_bits(&bits)));
        }
        let purposes: BTreeSet<_> =
            PURPOSES.iter().filter(|(name, _)| has(name)).map(|(_, own)| *own).collect();
        if !purposes.is_empty() {
            let list: Vec<u8> = purposes.into_iter().flat_map(identifier).collect();
            out.extend(extension(&[2, 5, 29, 37], false, &value(SEQUENCE, &[&list])));
        }
        // No authority itself.
        out.extend(extension(&[2, 5, 29, 19], true, &value(SEQUENCE, &[])));
        if let Some(id) = &self.key_id {
            let id = value(implicit(0), &[id]);
            out.extend(extension(&[2, 5, 29, 35], false, &value(SEQUENCE, &[&id])));
        }
        let texts = [(1, &request.emails), (2, &request.dns_names), (6, &request.uris)];
        let texts = texts.iter().flat_map(|(tag, list)| list.iter().map(|text| (*tag, text.as_bytes())));
        let addresses = request.addresses.iter().map(|bytes| (7, bytes.as_slice()));
        let names: Vec<u8> =
            texts.chain(addresses).flat_map(|(tag, bytes)| value(implicit(tag), &[bytes])).collect();
        if !names.is_empty() {
            // RFC 5280, 4.2.1.6: all that is said of a subject without a name of its own.
            let is_nameless = request.subject == value(SEQUENCE, &[]);
            out.extend(extension(&[2, 5, 29, 17], is_nameless, &value(SEQUENCE, &[&names])));
        }
        out
    }
}

fn pem(certificate: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, left) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = left;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out.into_bytes()
}
