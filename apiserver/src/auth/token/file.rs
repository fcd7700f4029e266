//! Tokens from a file: `token,user,uid,"group1,group2"` a line. Upstream:
//! `apiserver/pkg/authentication/token/tokenfile`.

use super::digest_of;
use api::UserInfo;
use std::collections::HashMap;

/// Tokens that never change while the server runs. They are kept as digests, so that looking one up says nothing about
/// another one by its timing.
#[derive(Default)]
pub struct FileTokens(HashMap<[u8; 32], UserInfo>);

/// A line of a token file is not as it must be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the token file: {why}")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub why: &'static str,
}

impl FileTokens {
    /// Reads the text of a file. Empty lines and lines that start with `#` are nothing.
    ///
    /// # Errors
    /// The first line that has no token, user and uid, or names a token again.
    pub fn parse(text: &str) -> Result<Self, BadLine> {
        let mut tokens = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |why| BadLine { line: index + 1, why };
            let fields = fields(line).ok_or_else(|| bad("a quote is not closed"))?;
            let [token, name, uid, groups @ ..] = fields.as_slice() else {
                return Err(bad("it needs a token, a user and a uid"));
            };
            if token.is_empty() || name.is_empty() {
                return Err(bad("token and user must not be empty"));
            }
            let groups = groups.first().map_or("", String::as_str).split(',').map(str::trim);
            let mut groups: Vec<_> = groups.filter(|group| !group.is_empty()).map(str::to_owned).collect();
            crate::auth::add_authenticated(&mut groups);
            let user = UserInfo { name: name.clone(), uid: uid.clone(), groups, extra: [].into() };
            if tokens.insert(digest_of(token), user).is_some() {
                return Err(bad("the token is in an earlier line"));
            }
        }
        Ok(Self(tokens))
    }

    /// The user of a token.
    pub fn find(&self, token: &str) -> Option<&UserInfo> {
        self.0.get(&digest_of(token))
    }
}

/// The fields of a CSV line; a quoted one may have commas, and `""` in it is a quote.
fn fields(line: &str) -> Option<Vec<String>> {
    let (mut fields, mut rest) = (Vec::new(), line);
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (part, after) = quoted.split_once('"')?;
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        quoted = more;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
        }
        let (tail, more) = rest.split_once(',').map_or((rest, None), |(tail, more)| (tail, Some(more)));
        field.push_str(tail.trim());
        fields.push(field);
        match more {
            Some(more) => rest = more.trim_start(),
            None => return Some(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let tokens =
            FileTokens::parse("# comment\n\nabc,root,1,\"system:masters, b\"\ndef, joe ,2\n").unwrap();
        let root = tokens.find("abc").unwrap();
        assert_eq!((root.name.as_str(), root.uid.as_str()), ("root", "1"));
        assert_eq!(root.groups, ["system:masters", "b", "system:authenticated"]);
        assert_eq!(tokens.find("def").unwrap().groups, ["system:authenticated"]);
        assert!(tokens.find("ab").is_none());
    }

    #[test]
    fn bad_lines() {
        let check = |text, line| assert_eq!(FileTokens::parse(text).map(|_| ()).unwrap_err().line, line);
        check("abc,root", 1);
        check("abc,root,1\nabc,joe,2", 2);
        check("abc,root,1,\"a", 1);
        check(",root,1", 1);
    }
}
