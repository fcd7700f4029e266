//! Bearer tokens: of service accounts, of bootstrapping nodes, from a file.
//!
//! Start at [`Tokens`]. A token that is there but known to nobody is an error, as upstream: it never falls back to the
//! anonymous user.

pub mod bearer;
pub mod bootstrap;
pub mod discovery;
pub mod file;
pub mod keys;
pub mod service_account;

pub use discovery::Discovery;
pub use file::FileTokens;
pub use keys::Keys;
pub use service_account::{Bound, Options, ServiceAccounts, Verified};

use crate::hooks::{Authenticate, Identity};
use api::{Lookup, Status};
use aws_lc_rs::digest;
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// A longer token is refused unread. The largest tokens of service accounts have about 2 KiB.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// What a signature check costs (about 0.1 ms) is paid once for this many tokens at a time, each less than 1 KiB.
const VERIFIED_LEN_MAX: usize = 4096;

/// The digest under which a token is looked up.
pub(crate) fn digest_of(text: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// Values of digests whose signature was right: two generations, so that forgetting costs nothing and what is in use
/// stays.
pub struct VerifiedCache<T>(Mutex<[HashMap<[u8; 32], Arc<T>>; 2]>);

impl<T> Default for VerifiedCache<T> {
    fn default() -> Self {
        Self(Mutex::new([HashMap::new(), HashMap::new()]))
    }
}

impl<T> VerifiedCache<T> {
    fn get(&self, digest: &[u8; 32]) -> Option<Arc<T>> {
        let mut generations = self.0.lock();
        if let Some(value) = generations[0].get(digest) {
            return Some(value.clone());
        }
        let value = generations[1].remove(digest)?;
        Self::insert(&mut generations, *digest, value.clone());
        Some(value)
    }

    fn put(&self, digest: [u8; 32], value: T) -> Arc<T> {
        let value = Arc::new(value);
        Self::insert(&mut self.0.lock(), digest, value.clone());
        value
    }

    fn insert(generations: &mut [HashMap<[u8; 32], Arc<T>>; 2], digest: [u8; 32], value: Arc<T>) {
        if generations[0].len() >= VERIFIED_LEN_MAX / 2 {
            generations[1] = std::mem::take(&mut generations[0]);
        }
        generations[0].insert(digest, value);
    }
}

/// Every kind of token.
pub struct Tokens {
    /// From the administrator.
    pub file: FileTokens,
    /// Of service accounts.
    pub accounts: Arc<ServiceAccounts>,
    /// Where bootstrap tokens are.
    pub lookup: Arc<dyn Lookup>,
}

impl Tokens {
    /// Who a token speaks for. `Ok(None)`: nobody knows it.
    ///
    /// # Errors
    /// What is wrong with a token of a service account.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Verified>, String> {
        if token.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        let found = self.file.find(token).cloned();
        if let Some(user) = found.or_else(|| bootstrap::find(&*self.lookup, token, now)) {
            // These tokens are meant for this server, whatever is asked.
            let own = &self.accounts.options().audiences;
            let audiences: Vec<_> =
                own.iter().filter(|audience| audiences.contains(audience)).cloned().collect();
            return Ok((!audiences.is_empty()).then_some(Verified { user, audiences }));
        }
        self.accounts.verify(token, audiences, now)
    }
}

impl Authenticate for Tokens {
    fn authenticate<'a>(
        &'a self,
        head: &'a http::request::Parts,
    ) -> BoxFuture<'a, Result<Option<Identity>, Status>> {
        let found = match bearer::token(&head.headers) {
            Ok(None) => Ok(None),
            Ok(Some(token)) => {
                match self.verify(&token, &self.accounts.options().audiences, Timestamp::now()) {
                    Ok(Some(verified)) => Ok(Some(Identity::from(verified.user))),
                    Ok(None) => Err("invalid bearer token".to_owned()),
                    Err(why) => Err(why),
                }
            }
            Err(malformed) => Err(malformed.to_string()),
        };
        Box::pin(std::future::ready(found.map_err(|why| {
            tracing::debug!(%why, "a bearer token was refused");
            Status::unauthorized()
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_in_the_cache() {
        let cache = VerifiedCache::default();
        let key = |number: u32| digest_of(&number.to_string());
        cache.put(key(0), 0);
        for number in 1..10_000 {
            cache.put(key(number), number);
            if number % 100 == 0 {
                assert_eq!(cache.get(&key(0)).as_deref(), Some(&0));
            }
        }
        assert!(cache.get(&key(1)).is_none());
        let generations = cache.0.lock();
        assert!(generations.iter().map(HashMap::len).sum::<usize>() <= VERIFIED_LEN_MAX);
    }
}
