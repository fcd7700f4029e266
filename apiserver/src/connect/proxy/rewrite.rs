//! Links and redirects of a proxied page, made to lead back to the proxy. Pure.
//! Upstream: `apimachinery/pkg/util/proxy/transport.go`.

/// Which attributes of which tags are URLs.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// A URL below the prefix, if it leads to the backend's own root; others stay as they are.
pub(super) fn url(text: &str, prefix: &str, backend: &str) -> String {
    let path = match text.split_once("://") {
        Some(("http" | "https", rest)) => {
            let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (host, path) = rest.split_at(at);
            if host != backend {
                return text.to_owned();
            }
            if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
        }
        Some(_) => return text.to_owned(),
        // Without a scheme but with a host.
        None if text.starts_with("//") => return text.to_owned(),
        None if text.starts_with('/') => text.to_owned(),
        None => return text.to_owned(),
    };
    if path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['/', '?', '#'])) {
        return path;
    }
    format!("{prefix}{path}")
}

/// A page with its links rewritten.
pub(super) fn html(page: &[u8], prefix: &str, backend: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let mut rest = page;
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        let (before, tag) = rest.split_at(at);
        out.extend_from_slice(before);
        let len = tag_len(tag);
        out.extend(rewrite_tag(&tag[..len], prefix, backend));
        rest = &tag[len..];
    }
    out.extend_from_slice(rest);
    out
}

/// Bytes of the tag that the text starts with: up to `>` outside quotes, or a whole comment.
fn tag_len(text: &[u8]) -> usize {
    if text.starts_with(b"<!--") {
        let end = text.windows(3).position(|part| part == b"-->");
        return end.map_or(text.len(), |end| end + 3);
    }
    let mut quote = None;
    for (index, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return index + 1,
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    text.len()
}

fn rewrite_tag(tag: &[u8], prefix: &str, backend: &str) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(tag) else { return tag.to_vec() };
    let name: String =
        text.chars().skip(1).take_while(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let Some((_, attributes)) = ATTRIBUTES.iter().find(|(own, _)| *own == name) else { return tag.to_vec() };
    let (mut out, mut rest) = (text[..=name.len()].to_owned(), &text[name.len() + 1..]);
    while let Some(at) = rest.find('=') {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        let attribute = before[..at].trim_end().rsplit(|c: char| c.is_whitespace() || c == '/').next();
        let is_link =
            attribute.is_some_and(|own| attributes.iter().any(|link| own.eq_ignore_ascii_case(link)));
        let blank = after.len() - after.trim_start().len();
        out.push_str(&after[..blank]);
        let value = &after[blank..];
        let (open, len) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => (1, value[1..].find(quote).unwrap_or(value.len() - 1)),
            _ => (0, value.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(value.len())),
        };
        out.push_str(&value[..open]);
        let own = &value[open..open + len];
        match is_link {
            true => out.push_str(&url(own, prefix, backend)),
            false => out.push_str(own),
        }
        rest = &value[open + len..];
        if open == 1 && !rest.is_empty() {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/a/pods/b/proxy";

    #[test]
    fn urls() {
        let check = |text: &str, expect: &str| assert_eq!(url(text, PREFIX, "10.0.0.1:80"), expect);
        check("/x", "/api/v1/namespaces/a/pods/b/proxy/x");
        check("/x/?q=1", "/api/v1/namespaces/a/pods/b/proxy/x/?q=1");
        check("x/y", "x/y");
        check("http://10.0.0.1:80/x", "/api/v1/namespaces/a/pods/b/proxy/x");
        check("https://example.com/x", "https://example.com/x");
        check("//example.com/x", "//example.com/x");
        check("/api/v1/namespaces/a/pods/b/proxy/x", "/api/v1/namespaces/a/pods/b/proxy/x");
        check("mailto:a@b", "mailto:a@b");
    }

    #[test]
    fn pages() {
        let check = |page: &str, expect: &str| {
            let found = html(page.as_bytes(), "/p", "h");
            assert_eq!(String::from_utf8(found).unwrap(), expect);
        };
        check(r#"<a href="/rewriteme">test</a>"#, r#"<a href="/p/rewriteme">test</a>"#);
        check("<A class=x HREF='/a' id=\"/b\">", "<A class=x HREF='/p/a' id=\"/b\">");
        check("<img src=/i.png alt=\"a > b\"/> x < y", "<img src=/p/i.png alt=\"a > b\"/> x < y");
        check("<!-- <a href=\"/x\"> --><p title=\"/y\">", "<!-- <a href=\"/x\"> --><p title=\"/y\">");
        check("<a href=\"", "<a href=\"");
        check("<a href=", "<a href=");
        check("<", "<");
    }
}
