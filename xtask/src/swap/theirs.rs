//! Upstream's kube-scheduler and kube-controller-manager on our API server and node, with our scheduler and controllers off.

use super::{Kubectl, Parts};
use crate::cluster::{Cluster, Part};
use crate::kit::{kit, program};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The administrator's kubeconfig, acting as somebody else: the server's own rules of access are part of the swap.
fn kubeconfig_as(cluster: &Cluster, user: &str, folder: &Path) -> Result<PathBuf> {
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(cluster.kubeconfig())?)?;
    let own = config.pointer_mut("/users/0/user").context("the kubeconfig has no user")?;
    own["as"] = user.into();
    let path = folder.join(format!("{user}.conf"));
    std::fs::write(&path, config.to_string())?;
    Ok(path)
}

/// A component with the flags that both understand.
fn component(cluster: &Cluster, name: &str, kubeconfig: &Path) -> Command {
    let mut command = cluster.enter(&program(name));
    command.arg("--leader-elect=false");
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(format!("--{flag}={}", kubeconfig.display()));
    }
    command
}

/// Pods become ready on our node, by their hands.
pub(super) fn run(binary: &Path, parts: &mut Parts) -> Result<()> {
    let name = format!("swap{}", std::process::id());
    let cluster = Cluster::start(&name, binary, Part::NodeWithoutLoops)?;
    cluster.import(&[kit().join("images/nginx.tar")])?;
    let enter = |program: &Path| cluster.enter(program);
    let kubectl = Kubectl { enter: &enter, kubeconfig: cluster.kubeconfig() };
    kubectl.apply_in_vain()?;
    let pki = |file: &str| cluster.data_dir().join("pki").join(file).display().to_string();
    let own = kubeconfig_as(&cluster, "system:kube-controller-manager", parts.folder())?;
    let mut controllers = component(&cluster, "kube-controller-manager", &own);
    controllers.args([
        "--use-service-account-credentials".to_owned(),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
    ]);
    parts.start("kube-controller-manager", controllers)?;
    let own = kubeconfig_as(&cluster, "system:kube-scheduler", parts.folder())?;
    parts.start("kube-scheduler", component(&cluster, "kube-scheduler", &own))?;
    kubectl.rolls_out()?;
    parts.end()
}
