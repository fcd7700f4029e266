//! What Go's scanner says about malformed JSON. Only run when decoding failed.

use super::DEPTH_MAX;

/// Go's text for the first syntax error, if there is one.
pub(super) fn error(body: &[u8]) -> Option<String> {
    let mut scan = Scan { body, at: 0, open: Vec::new() };
    scan.document().err()
}

struct Scan<'a> {
    body: &'a [u8],
    at: usize,
    /// Whether each open bracket is that of an object.
    open: Vec<bool>,
}

type Step = Result<(), String>;

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn invalid(&self, context: &str) -> String {
        let Some(byte) = self.peek() else { return "unexpected end of JSON input".to_owned() };
        let quoted = match byte {
            b'\'' => r"'\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            b'\n' => r"'\n'".to_owned(),
            b'\r' => r"'\r'".to_owned(),
            b'\t' => r"'\t'".to_owned(),
            b'\\' => r"'\\'".to_owned(),
            0x20..=0x7e => format!("'{}'", char::from(byte)),
            0xa1..=0xac | 0xae..=0xff => format!("'{}'", char::from(byte)),
            0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
            _ => format!("'\\x{byte:02x}'"),
        };
        format!("invalid character {quoted} {context}")
    }

    fn spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn document(&mut self) -> Step {
        self.begin()?;
        loop {
            self.spaces();
            match self.open.last() {
                None => {
                    return if self.at < self.body.len() {
                        Err(self.invalid("after top-level value"))
                    } else {
                        Ok(())
                    };
                }
                Some(true) => match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.key()?;
                        self.begin()?;
                    }
                    Some(b'}') => self.close(),
                    _ => return Err(self.invalid("after object key:value pair")),
                },
                Some(false) => match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.begin()?;
                    }
                    Some(b']') => self.close(),
                    _ => return Err(self.invalid("after array element")),
                },
            }
        }
    }

    fn close(&mut self) {
        self.at += 1;
        self.open.pop();
    }

    fn key(&mut self) -> Step {
        self.spaces();
        if self.peek() != Some(b'"') {
            return Err(self.invalid("looking for beginning of object key string"));
        }
        self.string()?;
        self.spaces();
        if self.peek() != Some(b':') {
            return Err(self.invalid("after object key"));
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a scalar, or opens objects and arrays up to their first scalar.
    fn begin(&mut self) -> Step {
        loop {
            self.spaces();
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.open.push(bracket == b'{');
                    if self.open.len() > DEPTH_MAX {
                        return Err("exceeded max depth".to_owned());
                    }
                    self.spaces();
                    match (bracket, self.peek()) {
                        (b'{', Some(b'}')) | (b'[', Some(b']')) => {
                            self.close();
                            return Ok(());
                        }
                        (b'{', _) => self.key()?,
                        _ => {}
                    }
                }
                Some(b'"') => return self.string(),
                Some(b'-' | b'0'..=b'9') => return self.number(),
                Some(b't') => return self.literal("true"),
                Some(b'f') => return self.literal("false"),
                Some(b'n') => return self.literal("null"),
                _ => return Err(self.invalid("looking for beginning of value")),
            }
        }
    }

    fn literal(&mut self, word: &str) -> Step {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                let context = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Err(self.invalid(&context));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Step {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                                    return Err(self.invalid("in \\u hexadecimal character escape"));
                                }
                                self.at += 1;
                            }
                        }
                        _ => return Err(self.invalid("in string escape code")),
                    }
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(self.invalid("in string literal")),
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Step {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else if self.digits() == 0 {
            return Err(self.invalid("in numeric literal"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.invalid("after decimal point in numeric literal"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.invalid("in exponent of numeric literal"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_go() {
        let check = |body: &str, expect: Option<&str>| {
            assert_eq!(error(body.as_bytes()).as_deref(), expect, "{body}")
        };
        check(r#"{"a":[1,true,null,{"b":-1.5e3}], "c":"\u00e9\n"}"#, None);
        check("", Some("unexpected end of JSON input"));
        check("{", Some("unexpected end of JSON input"));
        check("kind: Pod", Some("invalid character 'k' looking for beginning of value"));
        check("{a:1}", Some("invalid character 'a' looking for beginning of object key string"));
        check(r#"{"a" 1}"#, Some("invalid character '1' after object key"));
        check(r#"{"a":1 "b":2}"#, Some("invalid character '\"' after object key:value pair"));
        check(r#"{"a":1,}"#, Some("invalid character '}' looking for beginning of object key string"));
        check("[1 2]", Some("invalid character '2' after array element"));
        check("{} x", Some("invalid character 'x' after top-level value"));
        check("[trux]", Some("invalid character 'x' in literal true (expecting 'e')"));
        check("[\"a\nb\"]", Some(r"invalid character '\n' in string literal"));
        check("[1.]", Some("invalid character ']' after decimal point in numeric literal"));
    }
}
