//! The administrator's kubeconfig.

use crate::pki::Pair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// A kubeconfig with one cluster and one user, everything inside. (JSON is YAML, and needs no quoting rules.)
pub fn render(server: &str, ca_pem: &str, user: &Pair) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "clipper", "cluster": {"server": server, "certificate-authority-data": encode(ca_pem)}}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": encode(&user.certificate_pem),
            "client-key-data": encode(&user.key_pem),
        }}],
        "contexts": [{"name": "clipper", "context": {"cluster": "clipper", "user": "admin"}}],
        "current-context": "clipper",
    });
    let mut text = serde_json::to_string_pretty(&config).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_server_and_carries_the_keys() {
        let pair = Pair { certificate_pem: "C".into(), key_pem: "K".into() };
        let text = render("https://10.0.0.1:6443", "CA", &pair);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["clusters"][0]["cluster"]["server"], "https://10.0.0.1:6443");
        assert_eq!(parsed["clusters"][0]["cluster"]["certificate-authority-data"], "Q0E=");
        assert_eq!(parsed["users"][0]["user"]["client-key-data"], "Sw==");
    }
}
