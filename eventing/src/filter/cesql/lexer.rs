//! Tokens.

use super::ParseError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Letters, digits and underscores; keywords too.
    Word(String),
    /// Digits alone.
    Digits(String),
    Text(String),
    Symbol(&'static str),
}

/// Longer ones first.
const SYMBOLS: [&str; 14] = ["!=", "<>", "<=", ">=", "<", ">", "=", "(", ")", ",", "*", "/", "%", "+"];

/// The tokens of an expression with the byte where each starts.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ParseError> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if matches!(first, ' ' | '\t' | '\r' | '\n') {
            at += 1;
        } else if first.is_ascii_alphanumeric() {
            let len = rest.find(|own: char| !own.is_ascii_alphanumeric() && own != '_').unwrap_or(rest.len());
            let word = rest[..len].to_owned();
            let digits = word.bytes().all(|own| own.is_ascii_digit());
            all.push((at, if digits { Token::Digits(word) } else { Token::Word(word) }));
            at += len;
        } else if matches!(first, '\'' | '"') {
            let len = text_len(rest, first).ok_or(ParseError::Character { at })?;
            // Only the quote itself loses its backslash: patterns of LIKE have their own escapes.
            let own = rest[1..len - 1].replace(&format!("\\{first}"), &first.to_string());
            all.push((at, Token::Text(own)));
            at += len;
        } else if first == '-' {
            all.push((at, Token::Symbol("-")));
            at += 1;
        } else {
            let symbol =
                SYMBOLS.iter().find(|own| rest.starts_with(**own)).ok_or(ParseError::Character { at })?;
            all.push((at, Token::Symbol(symbol)));
            at += symbol.len();
        }
    }
    Ok(all)
}

/// How many bytes a quoted text has, quotes included.
fn text_len(rest: &str, quote: char) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, own)) = chars.next() {
        if own == '\\' {
            chars.next()?;
        } else if own == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
                continue;
            }
            return Some(at + 1);
        }
    }
    None
}
