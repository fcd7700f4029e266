//! Kubeconfigs: the administrator's, which is written, and those of others, which are read.

use crate::pki::Pair;
use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Identity, Remote};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use std::path::{Path, PathBuf};

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

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<ClusterEntry>,
    #[serde(default)]
    users: Vec<UserEntry>,
    #[serde(default)]
    contexts: Vec<ContextEntry>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct ClusterEntry {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct ContextEntry {
    name: String,
    context: Choice,
}

#[derive(Deserialize)]
struct Choice {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct UserEntry {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<IgnoredAny>,
    #[serde(rename = "as")]
    impersonates: Option<IgnoredAny>,
}

/// The server of a kubeconfig's current context and who we are to it. Files that it names lie beside it unless their path says
/// otherwise.
///
/// # Errors
/// It cannot be read, or says something that Clipper cannot do: the error names it.
pub fn read(path: &Path) -> Result<Remote> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    remote(&text, folder).with_context(|| format!("the kubeconfig {} cannot be used", path.display()))
}

fn remote(text: &str, folder: &Path) -> Result<Remote> {
    let config: Kubeconfig = serde_saphyr::from_str(text)?;
    let current = config.current_context;
    let mut contexts = config.contexts.into_iter();
    let choice =
        contexts.find(|own| own.name == current).with_context(|| format!("it has no context {current:?}"))?;
    let Choice { cluster: cluster_name, user: user_name } = choice.context;
    let mut clusters = config.clusters.into_iter();
    let cluster = clusters.find(|own| own.name == cluster_name);
    let cluster = cluster.with_context(|| format!("it has no cluster {cluster_name:?}"))?.cluster;
    let mut users = config.users.into_iter();
    let user = users.find(|own| own.name == user_name);
    let user = user.with_context(|| format!("it has no user {user_name:?}"))?.user;
    let ca = pem(cluster.certificate_authority_data, cluster.certificate_authority, folder)?;
    let ca = ca.with_context(|| format!("cluster {cluster_name:?} names no certificate-authority"))?;
    let identity = identity(user, folder).with_context(|| format!("user {user_name:?}"))?;
    Ok(Remote { server: cluster.server, ca, identity })
}

/// As client-go: a token wins over a certificate, and a token file over a token.
fn identity(user: User, folder: &Path) -> Result<Identity> {
    if user.exec.is_some() {
        bail!("exec is not supported: use a client certificate, token or tokenFile");
    }
    if user.impersonates.is_some() {
        bail!("as (impersonation) is not supported");
    }
    if let Some(path) = user.token_file {
        return Ok(Identity::TokenFile(folder.join(path)));
    }
    if let Some(token) = user.token {
        return Ok(Identity::Token(token));
    }
    let certificates = pem(user.client_certificate_data, user.client_certificate, folder)?;
    let key = pem(user.client_key_data, user.client_key, folder)?;
    match (certificates, key) {
        (Some(certificates), Some(key)) => Ok(Identity::Certificate { certificates, key }),
        _ => bail!("it has no client-certificate with client-key, token or tokenFile"),
    }
}

/// From the text itself, else from a file.
fn pem(data: Option<String>, path: Option<PathBuf>, folder: &Path) -> Result<Option<Vec<u8>>> {
    if let Some(data) = data {
        return Ok(Some(STANDARD.decode(data.trim()).context("a certificate or key is not valid base64")?));
    }
    let read = |path: PathBuf| {
        let path = folder.join(path);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    path.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_understood() {
        let pair = Pair { certificate_pem: "C".into(), key_pem: "K".into() };
        let own = remote(&render("https://10.0.0.1:6443", "CA", &pair), Path::new(".")).unwrap();
        assert_eq!((own.server.as_str(), own.ca.as_slice()), ("https://10.0.0.1:6443", b"CA".as_slice()));
        assert!(
            matches!(own.identity, Identity::Certificate { certificates, key } if certificates == b"C" && key == b"K")
        );
    }

    /// A kubeconfig with two users; the context chooses the one that is given.
    fn with_user(user: &str) -> String {
        format!(
            "current-context: c\ncontexts:\n- {{name: c, context: {{cluster: k, user: u}}}}\n\
             clusters:\n- {{name: k, cluster: {{server: 'https://a:1', certificate-authority: ca.crt}}}}\n\
             users:\n- {{name: other, user: {{token: wrong}}}}\n- {{name: u, user: {user}}}\n"
        )
    }

    #[test]
    fn the_context_chooses_and_files_lie_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ca.crt", "u.crt", "u.key"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let identity = |user: &str| remote(&with_user(user), dir.path()).map(|own| own.identity);
        let files = identity("{client-certificate: u.crt, client-key: u.key}").unwrap();
        assert!(
            matches!(files, Identity::Certificate { certificates, key } if certificates == b"u.crt" && key == b"u.key")
        );
        assert!(matches!(identity("{token: t}").unwrap(), Identity::Token(token) if token == "t"));
        let file = identity("{token: t, tokenFile: f}").unwrap();
        assert!(matches!(file, Identity::TokenFile(path) if path == dir.path().join("f")));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let check = |text: &str, expect: &str| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("ca.crt"), "CA").unwrap();
            let Err(error) = remote(text, dir.path()) else { panic!("{text} is taken") };
            assert!(format!("{error:#}").contains(expect), "{error:#}");
        };
        check("clusters: []\nusers: []\n", "no context");
        check(&with_user("{exec: {command: x}}"), "exec is not supported");
        check(&with_user("{as: somebody, token: t}"), "impersonation");
        check(&with_user("{client-certificate: missing.crt}"), "missing.crt");
        check(&with_user("{}"), "no client-certificate");
        check(&with_user("{token: t}").replace("user: u}", "user: v}"), "no user \"v\"");
    }

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
