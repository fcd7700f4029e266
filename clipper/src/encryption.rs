//! The keys that encrypt secrets in the store: `pki/encryption.key`, a key a line. The first one encrypts, all decrypt. To rotate, put
//! a line with a new key first and start again; old lines may go once every secret was written again.

use crate::pki::write_private;
use anyhow::{Context as _, Result, bail};
use apiserver::encryption::{Encryption, new_key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io::ErrorKind;
use std::path::Path;

/// Reads the keys, or makes the first one.
///
/// # Errors
/// Names the file and the line.
pub fn open(pki_dir: &Path) -> Result<Encryption> {
    let path = pki_dir.join("encryption.key");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let random = || new_key().context("the system has no random numbers");
            // An id of its own, so that a key of another cluster is told as such.
            let id: String = random()?[..4].iter().map(|byte| format!("{byte:02x}")).collect();
            let text = format!("{id} {}\n", BASE64.encode(random()?));
            write_private(&path, &text)?;
            text
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    parse(&text).with_context(|| format!("{} cannot be used", path.display()))
}

fn parse(text: &str) -> Result<Encryption> {
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((id, key)) = line.split_once(char::is_whitespace) else {
            bail!(
                "line {number}: an id and a key in base64 are needed, such as `2 $(head -c 32 /dev/urandom | base64)`"
            );
        };
        // The text itself is a secret: it is not repeated.
        let Ok(key) = BASE64.decode(key.trim()) else { bail!("line {number}: the key is no base64") };
        keys.push((id.to_owned(), key));
    }
    Ok(Encryption::new(&keys)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiserver::hooks::Transform as _;
    use bytes::Bytes;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_and_rotated_by_another_line() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = open(dir.path()).unwrap().seal(b"k", Bytes::from_static(b"plain")).unwrap();
        let path = dir.path().join("encryption.key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open(dir.path()).unwrap().open(b"k", sealed.clone()).unwrap(), "plain");
        let text = std::fs::read_to_string(&path).unwrap();
        write_private(&path, &format!("# new\n2 {}\n\n{text}", BASE64.encode([7; 32]))).unwrap();
        let rotated = open(dir.path()).unwrap();
        assert_eq!(rotated.open(b"k", sealed).unwrap(), "plain");
        let sealed = rotated.seal(b"k", Bytes::from_static(b"plain")).unwrap();
        assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:2:"));
    }

    #[test]
    fn wrong_lines_are_named_and_keys_are_not_told() {
        for (text, expect) in [
            ("", "there are 0 keys"),
            ("1\n", "line 1: an id and a key"),
            ("# x\n1 !secret!\n", "line 2: the key is no base64"),
            ("1 c2VjcmV0\n", "key 1: it has 6 bytes"),
        ] {
            let error = format!("{:#}", parse(text).err().unwrap());
            assert!(error.contains(expect) && !error.contains("secret"), "{error}");
        }
    }
}
