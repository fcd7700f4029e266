//! The cluster's keys and certificates: one own CA, short leaves that are renewed while running.
//!
//! Everything lies below `DATA_DIR/pki`, keys with mode 0600. Nothing here knows who uses a certificate: [`Pki::leaf`]
//! makes any leaf, [`Pki::ensure`] keeps one on disk and renews it when two thirds of its life are over.

use anyhow::{Context as _, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// Life of the CA. Upstream's kubeadm gives its CA ten years too.
const CA_DAYS: i64 = 3650;
/// Life of a leaf: short, since renewal needs nobody.
const LEAF_DAYS: i64 = 90;
/// A leaf is made valid from a little earlier, for clocks that disagree.
const BACKDATE_MINUTES: i64 = 10;

/// A certificate and its key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate (leaf only; the CA is kept apart).
    pub certificate_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

/// What a leaf says and may be used for.
#[derive(Clone, Debug, Default)]
pub struct Leaf<'a> {
    /// Common name: the user of a client certificate.
    pub common_name: &'a str,
    /// Organisations: the groups of a client certificate.
    pub organizations: &'a [&'a str],
    /// Host names of a server.
    pub dns_names: Vec<String>,
    /// Addresses of a server.
    pub addresses: Vec<IpAddr>,
}

/// The cluster's certificate authority.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca_key_pem: String,
}

impl Pki {
    /// Opens the CA in this directory, or makes it.
    ///
    /// # Errors
    /// The directory cannot be written, or what is there is no CA.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !key_path.exists() {
            let made = make_ca()?;
            write_private(&key_path, &made.key_pem)?;
            write_private(&cert_path, &made.certificate_pem)?;
        }
        let read =
            |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let pki = Self { dir: dir.to_owned(), ca_pem: read(&cert_path)?, ca_key_pem: read(&key_path)? };
        pki.issuer().with_context(|| format!("{} is not a certificate authority", dir.display()))?;
        Ok(pki)
    }

    /// The CA's certificate as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority of the API server towards servers that serve other group versions, a CA of its own: who has a
    /// certificate of the cluster's CA must not be able to speak for others there.
    ///
    /// # Errors
    /// As [`Pki::open`].
    pub fn front_proxy(&self) -> Result<Self> {
        Self::open(&self.dir.join("front-proxy"))
    }

    /// The CA's key as PEM, for the signer of certificate requests.
    pub fn ca_key_pem(&self) -> &str {
        &self.ca_key_pem
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::from_pem(&self.ca_key_pem)?;
        Ok(Issuer::from_ca_cert_pem(&self.ca_pem, key)?)
    }

    /// Makes a leaf, valid from `now`.
    ///
    /// # Errors
    /// A name is not valid in a certificate.
    pub fn leaf(&self, leaf: &Leaf<'_>, now: OffsetDateTime) -> Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(leaf.common_name, leaf.organizations);
        params.not_before = now - Duration::minutes(BACKDATE_MINUTES);
        params.not_after = now + Duration::days(LEAF_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !leaf.dns_names.is_empty() || !leaf.addresses.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        for name in &leaf.dns_names {
            let name = name.as_str().try_into().with_context(|| format!("{name} is not a host name"))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(leaf.addresses.iter().copied().map(SanType::IpAddress));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer()?)?;
        Ok(Pair { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The leaf kept under `name`, made anew when it is missing, due for renewal, or does not carry these names.
    ///
    /// # Errors
    /// As [`Pki::leaf`], or the files cannot be written.
    pub fn ensure(&self, name: &str, leaf: &Leaf<'_>, now: OffsetDateTime) -> Result<Pair> {
        let (cert_path, key_path) =
            (self.dir.join(format!("{name}.crt")), self.dir.join(format!("{name}.key")));
        if let (Ok(certificate_pem), Ok(key_pem)) =
            (fs::read_to_string(&cert_path), fs::read_to_string(&key_path))
            && is_good(&certificate_pem, leaf, now)
        {
            return Ok(Pair { certificate_pem, key_pem });
        }
        let made = self.leaf(leaf, now)?;
        write_private(&key_path, &made.key_pem)?;
        write_private(&cert_path, &made.certificate_pem)?;
        Ok(made)
    }

    /// The key that signs service account tokens, as PKCS #8 PEM; made at the first call.
    ///
    /// # Errors
    /// The file cannot be written, or is no key.
    pub fn service_account_key(&self) -> Result<KeyPair> {
        let path = self.dir.join("sa.key");
        if !path.exists() {
            write_private(&path, &KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?.serialize_pem())?;
        }
        let text = fs::read_to_string(&path)?;
        KeyPair::from_pem(&text).with_context(|| format!("{} is not a private key", path.display()))
    }
}

/// Whether a certificate carries the wanted names and has more than a third of its life left.
fn is_good(certificate_pem: &str, leaf: &Leaf<'_>, now: OffsetDateTime) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()) else { return false };
    let Ok(certificate) = pem.parse_x509() else { return false };
    let (from, until) =
        (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    if now.unix_timestamp() >= renewal_at(from, until) {
        return false;
    }
    let mut wanted: Vec<String> = leaf.dns_names.clone();
    wanted.extend(leaf.addresses.iter().map(ToString::to_string));
    let Ok(found) = certificate.subject_alternative_name() else { return false };
    let found: Vec<String> = found
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            x509_parser::extensions::GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
                16 => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    wanted.iter().all(|name| found.contains(name))
}

/// When two thirds of a life from `from` to `until` (seconds) are over.
fn renewal_at(from: i64, until: i64) -> i64 {
    from + (until - from) / 3 * 2
}

/// How long a fresh leaf may be used before it is renewed.
pub fn renewal_interval() -> std::time::Duration {
    std::time::Duration::from_secs((LEAF_DAYS * 86_400 / 3 * 2).unsigned_abs())
}

fn distinguished_name(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn make_ca() -> Result<Pair> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name("clipper-ca", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::minutes(BACKDATE_MINUTES);
    params.not_after = now + Duration::days(CA_DAYS);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// Writes a file that only its owner may read, atomically and durably.
///
/// # Errors
/// What the file system says.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let Some(dir) = path.parent() else { bail!("{} has no directory", path.display()) };
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Leaf<'static> {
        Leaf {
            common_name: "kube-apiserver",
            dns_names: vec!["localhost".into()],
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
            ..Leaf::default()
        }
    }

    #[test]
    fn a_leaf_is_kept_until_it_is_due_or_its_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let now = OffsetDateTime::now_utc();
        let first = pki.ensure("apiserver", &server(), now).unwrap();
        assert_eq!(pki.ensure("apiserver", &server(), now + Duration::days(30)).unwrap(), first);
        assert_ne!(pki.ensure("apiserver", &server(), now + Duration::days(61)).unwrap(), first);
        let mut more = server();
        more.dns_names.push("kubernetes".into());
        assert_ne!(pki.ensure("apiserver", &more, now).unwrap(), first);
    }

    #[test]
    fn the_ca_and_the_token_key_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let key = first.service_account_key().unwrap().serialize_pem();
        let again = Pki::open(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(key, again.service_account_key().unwrap().serialize_pem());
        fs::write(dir.path().join("ca.key"), "nonsense").unwrap();
        assert!(Pki::open(dir.path()).is_err());
    }

    #[test]
    fn keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        Pki::open(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
