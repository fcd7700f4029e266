//! PEM blocks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// One block.
pub(super) struct Block {
    /// Such as `CERTIFICATE`.
    pub label: String,
    /// Whether there were headers before the data.
    pub has_headers: bool,
    /// The decoded bytes.
    pub data: Vec<u8>,
}

/// All blocks of a text, in order. What is between them is skipped, as is a block that cannot be read.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        rest = after;
        let Some((label, body)) = after.split_once("-----") else {
            break;
        };
        let end = format!("-----END {label}-----");
        let Some((body, after)) = body.split_once(&end) else {
            continue;
        };
        rest = after;
        let has_headers = body.lines().any(|line| line.contains(':'));
        let lines = body.lines().filter(|line| !line.contains(':'));
        let joined: String = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
        if let Ok(data) = STANDARD.decode(joined) {
            found.push(Block { label: label.to_owned(), has_headers, data });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_other_text() {
        let text = "x\n-----BEGIN A-----\naGk=\n-----END A-----\ny\n-----BEGIN B-----\nk: v\n\naGk=\n-----END B-----\n";
        let found: Vec<_> =
            blocks(text).into_iter().map(|block| (block.label, block.has_headers, block.data)).collect();
        assert_eq!(found, [("A".into(), false, b"hi".to_vec()), ("B".into(), true, b"hi".to_vec())]);
        assert!(blocks("-----BEGIN A-----\naGk=").is_empty());
    }
}
