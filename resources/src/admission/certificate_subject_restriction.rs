//! Nobody gets a client certificate of the administrators' group by asking. Upstream:
//! `plugin/pkg/admission/certificates/subjectrestriction`.

use super::decode;
use crate::certificates::organizations;
use api::user::GROUP_MASTERS;
use api::{Admission, AdmissionRequest, Operation, Status};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub(super) struct CertificateSubjectRestriction;

impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let asks = request.is("certificates.k8s.io", "certificatesigningrequests")
            && request.object["spec"]["signerName"] == SIGNER;
        if !asks {
            return Ok(());
        }
        let asked: CertificateSigningRequest = decode(&request.object)?;
        let organizations = organizations(&asked.spec.request.0)
            .map_err(|why| request.forbidden(&format!("failed to parse CSR: {why}")))?;
        if organizations.iter().any(|own| own == GROUP_MASTERS) {
            return Err(request
                .forbidden(&format!("use of {SIGNER} signer with system:masters group is not allowed")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::create_in;
    use super::*;
    use crate::testing::Objects;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    #[test]
    fn nobody_asks_for_the_administrators_group() {
        let check = |pem: &str, signer: &str, expect: Option<&str>| {
            let spec =
                json!({"request": STANDARD.encode(pem), "signerName": signer, "usages": ["client auth"]});
            let object = json!({"metadata": {"name": "c"}, "spec": spec});
            let case = create_in("certificates.k8s.io", "certificatesigningrequests");
            let outcome = case.run(&CertificateSubjectRestriction, object, &Objects::default());
            let expect = expect.map(|why| {
                format!("certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: {why}")
            });
            assert_eq!(outcome.err().map(|status| status.message), expect);
        };
        let masters = include_str!("../testdata/csr_masters.pem");
        let refused =
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
        check(masters, SIGNER, Some(refused));
        check(masters, "example.com/signer", None);
        check(include_str!("../testdata/csr_devs.pem"), SIGNER, None);
        let why = "failed to parse CSR: PEM block type must be CERTIFICATE REQUEST";
        check("nonsense", SIGNER, Some(why));
    }
}
