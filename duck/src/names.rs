//! Names of what objects make. Upstream: knative.dev/pkg `kmeta/names.go`.

use md5::{Digest, Md5};

const NAME_LEN_MAX: usize = 63;
/// What is left of the parent where the hash (32 characters) takes the rest.
const HEAD_LEN: usize = NAME_LEN_MAX - 32;

/// A short text that stands for a longer one: what upstream shortens names with.
pub fn hash(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head(text: &str, len: usize) -> &str {
    text.get(..len.min(text.len())).unwrap_or(text)
}

/// The name of something that `parent` makes; shortened with a hash where it would be too long.
pub fn child(parent: &str, suffix: &str) -> String {
    if parent.len() + suffix.len() <= NAME_LEN_MAX {
        return format!("{parent}{suffix}");
    }
    if HEAD_LEN <= suffix.len() {
        let mut name = format!("{}{}", head(parent, HEAD_LEN), hash(&format!("{parent}{suffix}")));
        let left = NAME_LEN_MAX.saturating_sub(name.len());
        name.push_str(head(suffix, left));
        return name.trim_end_matches(|last: char| !last.is_ascii_alphanumeric()).to_owned();
    }
    format!("{}{}{suffix}", head(parent, HEAD_LEN - suffix.len()), hash(parent))
}

#[cfg(test)]
mod tests {
    use super::child;

    #[test]
    fn long_names_are_hashed() {
        let check = |parent: &str, suffix: &str, expect: &str| assert_eq!(child(parent, suffix), expect);
        check("asdf", "-deployment", "asdf-deployment");
        check(
            &"f".repeat(63),
            "-deployment",
            "ffffffffffffffffffff105d7597f637e83cc711605ac3ea4957-deployment",
        );
        assert_eq!(child(&"f".repeat(63), &"a".repeat(40)).len(), 63);
    }
}
