//! Encryption at rest: AES-256-GCM under the first of a list of keys; what any of them sealed, and what is plain, can be read.
//! Upstream: `apiserver/pkg/storage/value/encrypt/aes`.
//!
//! # Format
//! `k8s:enc:aesgcm:v1:` key id `:` nonce (12 bytes, random) ciphertext tag (16 bytes). The store's key is authenticated with it:
//! a value that was moved to another object's key does not open.
//!
//! # Rotation
//! A new key is put first and the old ones stay behind it until every object was written again. Nonces are random, so one key is
//! good for 2³² writes.

use crate::hooks::Transform;
use api::Status;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use bytes::Bytes;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a key's id.
pub const KEY_ID_BYTES_MAX: usize = 64;
/// Keys at once.
pub const KEYS_MAX: usize = 16;
/// What every encrypted value begins with, whoever encrypted it.
const ENCRYPTED: &[u8] = b"k8s:enc:";
const OURS: &[u8] = b"k8s:enc:aesgcm:v1:";

/// Why keys cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There must be from 1 to [`KEYS_MAX`].
    #[error("there are {len} keys, allowed are 1 to {KEYS_MAX}")]
    Count {
        /// How many there are.
        len: usize,
    },
    /// Its id is empty, too long or has other characters than letters, digits, `-` and `_`, or is another key's.
    #[error("key {index}: the id must be letters, digits, '-' and '_', and its own")]
    Id {
        /// Which, from 1.
        index: usize,
    },
    /// It has another length.
    #[error("key {index}: it has {bytes} bytes, needed are {KEY_BYTES}")]
    Length {
        /// Which, from 1.
        index: usize,
        /// What it has.
        bytes: usize,
    },
}

/// A new key; `None` where the system has no random numbers.
pub fn new_key() -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut key).ok()?;
    Some(key)
}

/// Seals with the first of its keys and opens with all.
pub struct Encryption(Vec<Key>);

struct Key {
    id: String,
    aead: RandomizedNonceKey,
}

impl Encryption {
    /// From ids and keys; the first one seals.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn new(keys: &[(String, Vec<u8>)]) -> Result<Self, KeyError> {
        if !(1..=KEYS_MAX).contains(&keys.len()) {
            return Err(KeyError::Count { len: keys.len() });
        }
        let mut own: Vec<Key> = Vec::new();
        for (index, (id, key)) in (1..).zip(keys) {
            let is_word =
                !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            if !is_word || id.len() > KEY_ID_BYTES_MAX || own.iter().any(|other| other.id == *id) {
                return Err(KeyError::Id { index });
            }
            let aead = RandomizedNonceKey::new(&AES_256_GCM, key);
            let aead = aead.map_err(|_| KeyError::Length { index, bytes: key.len() })?;
            own.push(Key { id: id.clone(), aead });
        }
        Ok(Self(own))
    }
}

fn damaged(key: &[u8], why: &str) -> Status {
    Status::internal(format!("the value of {} cannot be decrypted: {why}", String::from_utf8_lossy(key)))
}

impl Transform for Encryption {
    fn seal(&self, key: &[u8], plain: Bytes) -> Result<Bytes, Status> {
        let first = &self.0[0];
        let mut text = Vec::from(plain);
        let nonce = first.aead.seal_in_place_append_tag(Aad::from(key), &mut text);
        let nonce = nonce.map_err(|_| Status::internal("the value cannot be encrypted"))?;
        Ok([OURS, first.id.as_bytes(), b":", nonce.as_ref(), &text].concat().into())
    }

    fn open(&self, key: &[u8], kept: Bytes) -> Result<Bytes, Status> {
        let Some(rest) = kept.strip_prefix(OURS) else {
            return match kept.starts_with(ENCRYPTED) {
                true => Err(damaged(key, "it was encrypted in another way")),
                false => Ok(kept),
            };
        };
        let id_end = rest.iter().take(KEY_ID_BYTES_MAX + 1).position(|byte| *byte == b':');
        let (id, sealed) = rest.split_at(id_end.ok_or_else(|| damaged(key, "it names no key"))?);
        let own = self.0.iter().find(|own| own.id.as_bytes() == id);
        let own = own.ok_or_else(|| {
            let id = String::from_utf8_lossy(id);
            damaged(key, &format!("its key {id:?} is not among those in use"))
        })?;
        let (nonce, text) =
            sealed[1..].split_at_checked(NONCE_LEN).ok_or_else(|| damaged(key, "it is cut off"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged(key, "its nonce is none"))?;
        let mut text = text.to_vec();
        let plain = own.aead.open_in_place(nonce, Aad::from(key), &mut text);
        let len = plain.map_err(|_| damaged(key, "it was changed, or belongs to another object"))?.len();
        text.truncate(len);
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(ids: &[(&str, u8)]) -> Encryption {
        let keys: Vec<_> = ids.iter().map(|(id, fill)| ((*id).to_owned(), vec![*fill; KEY_BYTES])).collect();
        Encryption::new(&keys).unwrap()
    }

    const SECRET: &[u8] = br#"{"data":{"password":"aHVudGVyMg=="}}"#;

    #[test]
    fn what_is_sealed_opens_under_its_own_key_only() {
        let one = keys(&[("a", 1)]);
        let sealed = one.seal(b"/secrets/x", Bytes::from_static(SECRET)).unwrap();
        assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:a:"));
        assert!(!sealed.windows(8).any(|part| part == b"password"));
        assert_eq!(one.open(b"/secrets/x", sealed.clone()).unwrap(), SECRET);
        assert_ne!(sealed, one.seal(b"/secrets/x", Bytes::from_static(SECRET)).unwrap());
        assert!(one.open(b"/secrets/y", sealed.clone()).unwrap_err().message.contains("another object"));
        assert!(keys(&[("a", 2)]).open(b"/secrets/x", sealed.clone()).is_err());
        let rotated = keys(&[("b", 2), ("a", 1)]);
        assert_eq!(rotated.open(b"/secrets/x", sealed.clone()).unwrap(), SECRET);
        assert!(
            rotated.seal(b"/s", Bytes::from_static(SECRET)).unwrap().starts_with(b"k8s:enc:aesgcm:v1:b:")
        );
        let gone = keys(&[("b", 2)]).open(b"/secrets/x", sealed).unwrap_err();
        assert!(gone.message.contains("its key \"a\" is not among those in use"), "{}", gone.message);
    }

    #[test]
    fn plain_values_are_read_and_damaged_ones_are_not() {
        let one = keys(&[("a", 1)]);
        assert_eq!(one.open(b"k", Bytes::from_static(SECRET)).unwrap(), SECRET);
        let sealed = one.seal(b"k", Bytes::from_static(SECRET)).unwrap();
        for end in ENCRYPTED.len()..sealed.len() {
            assert!(one.open(b"k", sealed.slice(..end)).is_err(), "cut at {end}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            // A changed prefix makes it plain, which no JSON is.
            assert_ne!(one.open(b"k", changed.into()).ok().as_deref(), Some(SECRET), "changed at {at}");
        }
        assert!(one.open(b"k", Bytes::from_static(b"k8s:enc:kms:v2:x:y")).is_err());
    }

    #[test]
    fn keys_are_checked() {
        let refused = |keys: &[(&str, usize)]| {
            let keys: Vec<_> = keys.iter().map(|(id, len)| ((*id).to_owned(), vec![0; *len])).collect();
            Encryption::new(&keys).err().unwrap()
        };
        assert_eq!(refused(&[]), KeyError::Count { len: 0 });
        assert_eq!(refused(&[("a", 16)]), KeyError::Length { index: 1, bytes: 16 });
        assert_eq!(refused(&[("a", 32), ("a", 32)]), KeyError::Id { index: 2 });
        assert_eq!(refused(&[("a:b", 32)]), KeyError::Id { index: 1 });
    }
}
