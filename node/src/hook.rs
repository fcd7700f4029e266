//! Lifecycle hooks: what runs after a container started and before it is stopped. Upstream: `pkg/kubelet/lifecycle/handlers.go`.

use crate::probe::check;
use crate::spec::{ContainerDef, PodDef};
use k8s_openapi::api::core::v1::LifecycleHandler;
use std::time::Duration;

/// Runs a hook to its end.
///
/// # Errors
/// Why it failed, in upstream's words.
pub(crate) async fn run(
    runtime: &dyn runtime::Runtime,
    def: &PodDef,
    container: &ContainerDef,
    id: &str,
    address: Option<&str>,
    handler: &LifecycleHandler,
) -> Result<(), String> {
    let whom = format!("for Container \"{}\" in Pod \"{}\" failed", container.name(), def.label());
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = format!("[{}]", command.join(" "));
        return match runtime.exec_output(id, command, None).await {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => Err(format!(
                "Exec lifecycle hook ({shown}) {whom} - error: command '{}' exited with {}: {}, message: \"{}\"",
                shown.trim_matches(['[', ']']),
                output.exit_code,
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            )),
            Err(error) => {
                Err(format!("Exec lifecycle hook ({shown}) {whom} - error: {error}, message: \"\""))
            }
        };
    }
    if let Some(get) = &handler.http_get {
        let path = get.path.as_deref().unwrap_or_default();
        let failed = |error: String| format!("HTTP lifecycle hook ({path}) {whom} - error: {error}");
        let host = get.host.as_deref().filter(|host| !host.is_empty()).or(address);
        let Some(host) = host else { return Err(failed("failed to find networking container".to_owned())) };
        let Some(port) = check::resolve_port(&get.port, &container.spec) else {
            return Err(failed(check::unknown_port(&get.port)));
        };
        let answer = check::follow(get, host, port, "lifecycle").await;
        return match answer {
            // A server that speaks plain HTTP where HTTPS was asked for still gets its call. Upstream: `isHTTPResponseError`.
            Err(_) if get.scheme.as_deref() == Some("HTTPS") => {
                let plain = k8s_openapi::api::core::v1::HTTPGetAction {
                    scheme: Some("HTTP".to_owned()),
                    ..get.clone()
                };
                check::follow(&plain, host, port, "lifecycle").await.map(|_| ()).map_err(failed)
            }
            other => other.map(|_| ()).map_err(failed),
        };
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    if let Some(socket) = &handler.tcp_socket {
        let host = socket.host.as_deref().filter(|host| !host.is_empty()).or(address).unwrap_or_default();
        let port = check::resolve_port(&socket.port, &container.spec).unwrap_or(0);
        let connected = tokio::net::TcpStream::connect((host, port)).await;
        return connected.map(|_| ()).map_err(|error| format!("TCP lifecycle hook {whom} - error: {error}"));
    }
    Err(format!("Cannot run handler: invalid handler: {handler:?}"))
}
