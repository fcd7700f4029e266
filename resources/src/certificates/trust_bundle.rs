//! `ClusterTrustBundle`. Upstream: `pkg/registry/certificates/clustertrustbundle`, `ValidateClusterTrustBundle`.

use super::{check_signer_name, pem};
use crate::pod_spec::text;
use api::{FieldErrors, Strategy, names};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use std::collections::BTreeMap;

/// The largest bundle: 1 MiB, which fits into what etcd takes.
const BUNDLE_BYTES_MAX: usize = 1 << 20;

pub(super) struct Rules;

/// What is wrong with a bundle's name, whose signer is in it.
pub(crate) fn bundle_name_faults(name: &str) -> names::Faults {
    match name.rsplit_once(':') {
        None => names::dns_subdomain(name),
        Some((_, own)) => names::dns_subdomain(own),
    }
}

impl Strategy for Rules {
    type Kind = ClusterTrustBundle;

    fn name_faults(&self, name: &str) -> Vec<String> {
        bundle_name_faults(name)
    }

    fn validate(&self, bundle: &ClusterTrustBundle, errors: &mut FieldErrors) {
        let (name, signer) = (text(&bundle.metadata.name), text(&bundle.spec.signer_name));
        if signer.is_empty() {
            if name.contains(':') {
                let why = "ClusterTrustBundle without signer name must not have \":\" in its name";
                errors.invalid("metadata.name", name, why);
            }
        } else {
            let prefix = format!("{}:", signer.replace('/', ":"));
            if !name.starts_with(&prefix) {
                let why =
                    format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
                errors.invalid("metadata.name", name, why);
            }
            check_signer_name("spec.signerName", signer, errors);
        }
    }

    fn validate_create(&self, bundle: &ClusterTrustBundle, errors: &mut FieldErrors) {
        check_bundle(&bundle.spec.trust_bundle, errors);
    }

    fn validate_update(&self, new: &ClusterTrustBundle, old: &ClusterTrustBundle, errors: &mut FieldErrors) {
        if new.spec.trust_bundle != old.spec.trust_bundle {
            check_bundle(&new.spec.trust_bundle, errors);
        }
        errors.immutable("spec.signerName", &text(&new.spec.signer_name), &text(&old.spec.signer_name));
    }
}

fn check_bundle(bundle: &str, errors: &mut FieldErrors) {
    const FIELD: &str = "spec.trustBundle";
    if bundle.len() > BUNDLE_BYTES_MAX {
        return errors.too_long(FIELD, BUNDLE_BYTES_MAX);
    }
    let mut seen: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    let mut fine = true;
    for (at, block) in pem::blocks(bundle).into_iter().enumerate() {
        let why = match x509_parser::parse_x509_certificate(&block.data) {
            _ if block.label != "CERTIFICATE" => Some(format!("has bad block type: {}", block.label)),
            _ if block.has_headers => Some("has PEM block headers".to_owned()),
            Err(_) => Some("does not parse as X.509".to_owned()),
            Ok((_, certificate)) if !certificate.is_ca() => Some("does not have the CA bit set".to_owned()),
            Ok(_) => None,
        };
        match why {
            Some(why) => {
                errors.invalid(FIELD, "<value omitted>", format!("entry {at} {why}"));
                fine = false;
            }
            None => seen.entry(block.data).or_default().push(at.to_string()),
        }
    }
    if !fine {
        return;
    }
    if seen.is_empty() {
        errors.invalid(FIELD, "<value omitted>", "at least one trust anchor must be provided");
    }
    for entries in seen.values().filter(|entries| entries.len() > 1) {
        let why = format!("duplicate trust anchor (indices [{}])", entries.join(" "));
        errors.invalid(FIELD, "<value omitted>", why);
    }
}
