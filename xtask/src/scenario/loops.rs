//! What control loops do by themselves: claims, certificates, what is left over.

use super::{Scenario, bash, fed, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "claims",
        steps: &[
            bash(VOLUMES, &["persistentvolume/claims-one created", "persistentvolume/claims-two created"]),
            fed("apply -f -", CLAIMS, &["persistentvolumeclaim/data created", "pod/writer created"]),
            step("wait pod/writer pod/scratch --for=condition=Ready --timeout=60s", &["condition met"]),
            step("get pvc", &["data", "Bound", "claims-one", "1Gi", "scratch-d", "claims-two", "2Gi"]),
            step(
                "describe pvc huge",
                &[
                    "FailedBinding",
                    "no persistent volumes available for this claim and no storage class is set",
                ],
            ),
            bash("cat $DIR/one/file", &["kept"]),
            step("delete pod writer scratch", &["pod \"writer\" deleted"]),
            step("wait pvc/scratch-d --for=delete --timeout=60s", &[]),
            step("delete pvc data", &["deleted"]),
            step(
                "wait pv/claims-two --for=jsonpath={.status.phase}=Released --timeout=60s",
                &["condition met"],
            ),
            step(
                "wait pv/claims-one --for=jsonpath={.status.phase}=Failed --timeout=60s",
                &["condition met"],
            ),
            step("describe pv claims-one", &["VolumeFailedDelete", "no deletable volume plugin matched"]),
            bash("cat $DIR/one/file", &["kept"]),
            step("delete pv claims-one claims-two", &["deleted"]),
        ],
    },
    Scenario {
        name: "certificates",
        steps: &[
            bash(REQUESTS, &["certificates-user created", "certificates-node created"]),
            step("certificate approve certificates-user", &["approved"]),
            step(
                "wait csr/certificates-user --for=jsonpath={.status.certificate} --timeout=60s",
                &["condition met"],
            ),
            step(
                "wait csr/certificates-node --for=jsonpath={.status.certificate} --timeout=60s",
                &["condition met"],
            ),
            step("get csr", &["certificates-user", "certificates-node", "Approved,Issued"]),
            bash(AS_THE_USER, &["jane", "[dev ops system:authenticated]"]),
            step("delete csr certificates-user certificates-node", &["deleted"]),
        ],
    },
    Scenario {
        name: "left-over",
        steps: &[
            fed("apply -f -", LEFT_OVER, &["job.batch/quick created", "pod/lost created"]),
            step(
                "wait clusterrole/left-over --for=jsonpath={.rules[0].resources[0]}=pods --timeout=60s",
                &["condition met"],
            ),
            step("delete clusterrole left-over left-over-part", &["deleted"]),
            step("wait job/quick --for=delete --timeout=60s", &[]),
            // Its node does not exist: it is given up 40 s after it was made.
            step("wait pod/lost --for=delete --timeout=90s", &[]),
        ],
    },
];

const VOLUMES: &str = "
mkdir $DIR/one $DIR/two
$K apply -f - <<END
apiVersion: v1
kind: PersistentVolume
metadata: {name: claims-one}
spec: {storageClassName: claims, capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Delete,
  hostPath: {path: $DIR/one}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: claims-two}
spec: {storageClassName: claims, capacity: {storage: 2Gi}, accessModes: [ReadWriteOnce], hostPath: {path: $DIR/two}}
END
";

const CLAIMS: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {storageClassName: claims, accessModes: [ReadWriteOnce], resources: {requests: {storage: 500Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: huge}
spec: {storageClassName: '', accessModes: [ReadWriteOnce], resources: {requests: {storage: 500Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c, 'echo kept > /data/file; sleep 1000']
    volumeMounts: [{name: d, mountPath: /data}]
  volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: Pod
metadata: {name: scratch}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: 'busybox:1.37', command: [sleep, '1000'], volumeMounts: [{name: d, mountPath: /data}]}
  volumes:
  - name: d
    ephemeral:
      volumeClaimTemplate:
        spec: {storageClassName: claims, accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}
";

const REQUESTS: &str = "
request() { # name, signer, subject
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $DIR/$1.key -subj $3 -out $DIR/$1.csr 2>&1
  $K apply -f - <<END
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: certificates-$1}
spec: {request: $(base64 -w0 $DIR/$1.csr), signerName: kubernetes.io/$2, usages: [digital signature, client auth]}
END
}
request user kube-apiserver-client /O=dev/O=ops/CN=jane
request node kube-apiserver-client-kubelet /O=system:nodes/CN=system:node:certificates
";

const AS_THE_USER: &str = "
$K get csr certificates-user -o jsonpath={.status.certificate} | base64 -d > $DIR/user.crt
$K config view --raw > $DIR/config
own=\"${K%% *} --kubeconfig $DIR/config\"
$own config set-credentials jane --client-certificate=$DIR/user.crt --client-key=$DIR/user.key
$own --user=jane auth whoami
";

const LEFT_OVER: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: quick}
spec:
  ttlSecondsAfterFinished: 1
  template:
    spec: {restartPolicy: Never, containers: [{name: c, image: 'busybox:1.37', command: ['true']}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: left-over}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {part-of: left-over}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: left-over-part, labels: {part-of: left-over}}
rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]
---
apiVersion: v1
kind: Pod
metadata: {name: lost}
spec: {nodeName: nowhere, containers: [{name: c, image: 'busybox:1.37'}]}
";
