//! The keys that sign and verify service account tokens, and how the world sees them (JWKS).
//! Upstream: `pkg/serviceaccount/{jwt,openidmetadata}.go`.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;

/// A key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no private key in the text.
    #[error("no private key in PEM form was found")]
    NoPrivateKey,
    /// It is neither RSA nor P-256 nor P-384.
    #[error("the key is neither RSA nor ECDSA over P-256 or P-384")]
    Unsupported,
    /// The public part cannot be read.
    #[error("the public key is malformed")]
    Malformed,
    /// The library refuses it.
    #[error("the key is refused")]
    Jwt(#[from] jsonwebtoken::errors::Error),
}

/// Why a token was not accepted by the keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No key has the id that the token names.
    #[error("invalid signature, no keys found")]
    NoKey,
    /// The token is malformed or its signature wrong.
    #[error("{0}")]
    Jwt(#[from] jsonwebtoken::errors::Error),
}

struct VerifyingKey {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
    jwk: Value,
}

/// One signing key and every key that verifies.
pub struct Keys {
    signing: EncodingKey,
    header: Header,
    verifying: Vec<VerifyingKey>,
}

impl Keys {
    /// From the PEM of a private key (PKCS #8, PKCS #1 or SEC 1) and the PEM of public keys that also verify, for tokens
    /// signed before a rotation.
    ///
    /// # Errors
    /// A key is malformed or of a kind that Kubernetes does not use.
    pub fn from_pem(private: &str, more_public: &str) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(private.as_bytes()).map_err(|_| KeyError::NoPrivateKey)?;
        let (signing, public) = signing_key(&key, private)?;
        let own = verifying_key(&public)?;
        let mut header = Header::new(own.algorithm);
        // Upstream's tokens have no `typ`.
        (header.typ, header.kid) = (None, Some(own.id.clone()));
        let mut verifying = vec![own];
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(more_public.as_bytes()) {
            let key = verifying_key(&der.map_err(|_| KeyError::Malformed)?)?;
            if verifying.iter().all(|own| own.id != key.id) {
                verifying.push(key);
            }
        }
        Ok(Self { signing, header, verifying })
    }

    /// Signs claims.
    ///
    /// # Errors
    /// The library cannot sign.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&self.header, claims, &self.signing)
    }

    /// The claims of a token with a right signature. Times, issuer and audience are the caller's matter.
    ///
    /// # Errors
    /// No key fits, or the token is malformed.
    pub fn verify<T: DeserializeOwned + Clone>(&self, token: &str) -> Result<T, VerifyError> {
        let header = jsonwebtoken::decode_header(token)?;
        let fitting = self.verifying.iter().filter(|key| match header.kid.as_deref() {
            Some("") | None => key.algorithm == header.alg,
            Some(id) => key.id == id,
        });
        let mut error = VerifyError::NoKey;
        for key in fitting {
            let mut validation = Validation::new(key.algorithm);
            (validation.validate_exp, validation.validate_aud) = (false, false);
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<T>(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(why) => error = why.into(),
            }
        }
        Err(error)
    }

    /// The key set document.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.verifying.iter().map(|key| key.jwk.clone()).collect::<Vec<_>>()})
    }

    /// The algorithms of the keys, in order and each once.
    pub fn algorithms(&self) -> Vec<String> {
        let names: std::collections::BTreeSet<_> =
            self.verifying.iter().map(|key| format!("{:?}", key.algorithm)).collect();
        names.into_iter().collect()
    }
}

/// The key in the library's form, and its public part as SubjectPublicKeyInfo.
fn signing_key(key: &PrivateKeyDer<'_>, pem: &str) -> Result<(EncodingKey, Vec<u8>), KeyError> {
    let der = key.secret_der();
    let spki = |public: Result<PublicKeyX509Der<'_>, _>| match public {
        Ok(public) => Ok(public.as_ref().to_vec()),
        Err(aws_lc_rs::error::Unspecified) => Err(KeyError::Malformed),
    };
    if let Ok(rsa) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
        return Ok((EncodingKey::from_rsa_pem(pem.as_bytes())?, spki(rsa.public_key().as_der())?));
    }
    for algorithm in [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING] {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der)
            .or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der));
        if let Ok(pair) = pair {
            let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Malformed)?;
            return Ok((EncodingKey::from_ec_der(pkcs8.as_ref()), spki(pair.public_key().as_der())?));
        }
    }
    Err(KeyError::Unsupported)
}

fn verifying_key(spki: &[u8]) -> Result<VerifyingKey, KeyError> {
    let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, spki));
    let (_, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| KeyError::Malformed)?;
    match info.parsed().map_err(|_| KeyError::Malformed)? {
        PublicKey::RSA(rsa) => {
            let bare = |number: &[u8]| {
                let zeros = number.iter().take_while(|byte| **byte == 0).count();
                URL_SAFE_NO_PAD.encode(&number[zeros..])
            };
            let (n, e) = (bare(rsa.modulus), bare(rsa.exponent));
            let jwk = json!({"use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": n, "e": e});
            let key = DecodingKey::from_rsa_components(&n, &e)?;
            Ok(VerifyingKey { id, algorithm: Algorithm::RS256, key, jwk })
        }
        PublicKey::EC(point) => {
            let data = point.data();
            let (algorithm, curve, len) = match data.len() {
                65 => (Algorithm::ES256, "P-256", 32),
                97 => (Algorithm::ES384, "P-384", 48),
                _ => return Err(KeyError::Unsupported),
            };
            if data[0] != 4 {
                return Err(KeyError::Malformed);
            }
            let (x, y) = data[1..].split_at(len);
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            let name = format!("{algorithm:?}");
            let jwk =
                json!({"use": "sig", "kty": "EC", "kid": id, "crv": curve, "alg": name, "x": x, "y": y});
            let key = DecodingKey::from_ec_components(&x, &y)?;
            Ok(VerifyingKey { id, algorithm, key, jwk })
        }
        _ => Err(KeyError::Unsupported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_key_signs_the_next_set_of_keys_verifies() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256]
        {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let keys = Keys::from_pem(&pair.serialize_pem(), "").unwrap();
            let token = keys.sign(&json!({"sub": "a"})).unwrap();
            assert_eq!(keys.verify::<Value>(&token).unwrap()["sub"], "a");
            let next = rcgen::KeyPair::generate().unwrap().serialize_pem();
            assert!(Keys::from_pem(&next, "").unwrap().verify::<Value>(&token).is_err());
            let rotated = Keys::from_pem(&next, &pair.public_key_pem()).unwrap();
            assert_eq!(rotated.verify::<Value>(&token).unwrap()["sub"], "a");
            assert_eq!(rotated.jwks()["keys"].as_array().unwrap().len(), 2);
            let forged = format!("{}A", &token[..token.len() - 4]);
            assert!(keys.verify::<Value>(&forged).is_err());
        }
    }
}
