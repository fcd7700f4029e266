//! Projected volumes. Upstream: `validateProjectionSources`.

use super::{text, volume};
use api::FieldErrors;
use api::names::{check_one_of, check_selector};
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, PodCertificateProjection, ProjectedVolumeSource,
    ServiceAccountTokenProjection, VolumeProjection,
};
use std::collections::BTreeSet;

/// The shortest life of a token, in seconds.
const TOKEN_SECONDS_MIN: i64 = 600;
/// The longest.
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
/// The shortest life of a certificate, in seconds.
const CERTIFICATE_SECONDS_MIN: i32 = 3600;
/// The longest one of any signer: 91 days.
const CERTIFICATE_SECONDS_MAX: i32 = 91 * 24 * 3600;
/// The longest one of upstream's own signers: a day.
const CERTIFICATE_SECONDS_MAX_OWN: i32 = 24 * 3600;
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const CONFLICT: &str = "conflicting duplicate paths";

pub(super) fn check(projected: &ProjectedVolumeSource, errors: &mut FieldErrors) {
    volume::check_mode(errors, "defaultMode", projected.default_mode);
    let mut paths = BTreeSet::new();
    for (at, source) in projected.sources.iter().flatten().enumerate() {
        let kinds = [
            source.secret.is_some(),
            source.config_map.is_some(),
            source.downward_api.is_some(),
            source.service_account_token.is_some(),
            source.cluster_trust_bundle.is_some(),
            source.pod_certificate.is_some(),
        ];
        if kinds.iter().filter(|is_set| **is_set).count() > 1 {
            errors.forbidden(&format!("sources[{at}]"), "may not specify more than 1 volume type per source");
        }
        check_files(at, source, &mut paths, errors);
        if let Some(token) = &source.service_account_token {
            check_token(at, token, errors);
        }
        if let Some(bundle) = &source.cluster_trust_bundle {
            errors.at(&format!("sources[{at}].clusterTrustBundle"), |errors| check_bundle(bundle, errors));
            claim(&bundle.path, &bundle.path, &mut paths, errors);
        }
        if let Some(certificate) = &source.pod_certificate {
            errors.at(&format!("sources[{at}].podCertificate"), |errors| {
                check_certificate(certificate, errors);
            });
            for path in certificate_paths(certificate).map(|(_, path)| path) {
                claim(path, path, &mut paths, errors);
            }
        }
    }
}

/// Every path may be written by one source only.
fn claim(path: &str, shown: &str, paths: &mut BTreeSet<String>, errors: &mut FieldErrors) {
    if !path.is_empty() && !paths.insert(path.to_owned()) {
        errors.invalid("", shown, CONFLICT);
    }
}

fn check_files(at: usize, source: &VolumeProjection, paths: &mut BTreeSet<String>, errors: &mut FieldErrors) {
    let keyed = [
        ("secret", source.secret.as_ref().map(|own| (&own.name, &own.items))),
        ("configMap", source.config_map.as_ref().map(|own| (&own.name, &own.items))),
    ];
    for (field, own) in keyed {
        let Some((name, items)) = own else {
            continue;
        };
        if name.is_empty() {
            errors.required(&format!("sources[{at}].{field}.name"), "");
        }
        for (item_at, item) in items.iter().flatten().enumerate() {
            errors.at(&format!("sources[{at}].{field}.items[{item_at}]"), |errors| {
                volume::check_key_to_path(item, errors);
            });
            claim(&item.path, name, paths, errors);
        }
    }
    if let Some(downward) = &source.downward_api {
        for file in downward.items.iter().flatten() {
            errors.at(&format!("sources[{at}].downwardAPI"), |errors| volume::check_file(file, errors));
            claim(&file.path, &file.path, paths, errors);
        }
    }
}

fn check_token(at: usize, token: &ServiceAccountTokenProjection, errors: &mut FieldErrors) {
    let field = format!("sources[{at}].serviceAccountToken.expirationSeconds");
    match token.expiration_seconds {
        None => errors.required(&field, ""),
        Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
            errors.invalid(&field, seconds, "may not specify a duration less than 10 minutes");
        }
        Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
            errors.invalid(&field, seconds, "may not specify a duration larger than 2^32 seconds");
        }
        Some(_) => {}
    }
    match token.path.as_str() {
        "" => errors.required("path", ""),
        path => volume::check_not_reserved("path", path, errors),
    }
}

fn check_bundle(bundle: &ClusterTrustBundleProjection, errors: &mut FieldErrors) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => errors.invalid(
            "",
            serde_json::to_value(bundle).unwrap_or_default(),
            "only one of name and signerName may be used",
        ),
        (Some(name), None) => {
            if name.is_empty() {
                errors.required("name", "must be a valid object name");
            }
            for fault in crate::certificates::bundle_name_faults(name) {
                errors.invalid("name", name.as_str(), format!("not a valid clustertrustbundlename: {fault}"));
            }
            if let Some(selector) = &bundle.label_selector {
                errors.invalid(
                    "labelSelector",
                    serde_json::to_value(selector).unwrap_or_default(),
                    "labelSelector must be unset if name is specified",
                );
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.required("signerName", "must be a valid signer name");
            }
            crate::certificates::check_signer_name("signerName", signer, errors);
            check_selector(errors, "labelSelector", bundle.label_selector.as_ref());
        }
        (None, None) => errors.required("", "either name or signerName must be specified"),
    }
    if bundle.path.is_empty() {
        errors.required("path", "");
    }
    volume::check_not_reserved("path", &bundle.path, errors);
}

fn certificate_paths(own: &PodCertificateProjection) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("credentialBundlePath", text(&own.credential_bundle_path)),
        ("keyPath", text(&own.key_path)),
        ("certificateChainPath", text(&own.certificate_chain_path)),
    ]
    .into_iter()
    .filter(|(_, path)| !path.is_empty())
}

fn check_certificate(certificate: &PodCertificateProjection, errors: &mut FieldErrors) {
    crate::certificates::check_signer_name("signerName", &certificate.signer_name, errors);
    check_one_of(errors, "keyType", &certificate.key_type, &KEY_TYPES);
    if let Some(seconds) = certificate.max_expiration_seconds {
        let max = match certificate.signer_name.starts_with("kubernetes.io/") {
            true => CERTIFICATE_SECONDS_MAX_OWN,
            false => CERTIFICATE_SECONDS_MAX,
        };
        if seconds < CERTIFICATE_SECONDS_MIN {
            errors.invalid(
                "maxExpirationSeconds",
                seconds,
                "if provided, maxExpirationSeconds must be >= 3600",
            );
        }
        if seconds > max {
            errors.invalid(
                "maxExpirationSeconds",
                seconds,
                format!("if provided, maxExpirationSeconds must be <= {max}"),
            );
        }
    }
    for (field, path) in certificate_paths(certificate) {
        volume::check_not_reserved(field, path, errors);
    }
    if certificate_paths(certificate).next().is_none() {
        errors
            .required("", "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}
