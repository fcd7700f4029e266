//! Knative's figures: a request to a service at zero, and what the data plane adds to one that is warm.

use super::rows::{Figure, Figures, after};
use super::subject::Subject;
use crate::kit::{kit, output};
use anyhow::{Context as _, Result};
use std::path::Path;
use std::process::Command;

/// Cold starts, of which the median and the slowest count.
const COLD_STARTS: usize = 20;
/// How long the data path is measured with each number of connections.
const WRK_SECONDS: &str = "-d5s";
const GATEWAY: &str = "http://172.31.0.1/";
const HOST: &str = "hello.default.example.com";
const SERVICE: &str = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/window: 6s}}
    spec: {containers: [{image: 'registry.knative.test/kn/helloworld:e2e'}]}
";

/// Measures on a running node.
///
/// # Errors
/// What could not be measured.
pub(super) fn knative(subject: &Subject) -> Result<Figures> {
    subject.import(&kit().join("images/kn-helloworld.tar"))?;
    let settings = [
        ("config-domain", r#"{"data":{"example.com":""}}"#),
        ("config-autoscaler", r#"{"data":{"scale-to-zero-grace-period":"1s"}}"#),
    ];
    for (map, patch) in settings {
        subject.kubectl(
            &["patch", "configmap", map, "-n", "knative-serving", "--type=merge", "-p", patch],
            "",
        )?;
    }
    subject.kubectl(&["apply", "-f", "-"], SERVICE)?;
    subject.kubectl(&["wait", "ksvc/hello", "--for=condition=Ready", "--timeout=60s"], "")?;
    let mut figures = cold_starts(subject)?;
    figures.extend(data_path(subject)?);
    subject.kubectl(&["delete", "ksvc", "hello"], "")?;
    Ok(figures)
}

fn cold_starts(subject: &Subject) -> Result<Figures> {
    let mut times = Vec::new();
    for _ in 0..COLD_STARTS {
        let gone =
            ["wait", "pod", "-l", "serving.knative.dev/service=hello", "--for=delete", "--timeout=120s"];
        subject.kubectl(&gone, "")?;
        let mut curl = subject.enter(Path::new("curl"));
        curl.args(["-sf", "-m", "30", "-o", "/dev/null", "-w", "%{time_total}", "-H"]);
        curl.arg(format!("Host: {HOST}")).arg(GATEWAY);
        let seconds: f64 = output(curl, "")?.trim().parse().context("curl printed no time")?;
        times.push(seconds * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    println!("cold starts in ms: {times:.0?}");
    let slowest = times.last().copied().context("nothing was measured")?;
    Ok(Figures::from([(Figure::ColdStart, times[times.len() / 2]), (Figure::ColdStartMax, slowest)]))
}

/// The same requests to the pod, and through gateway and queue.
fn data_path(subject: &Subject) -> Result<Figures> {
    let pod =
        ["get", "pod", "-l", "serving.knative.dev/service=hello", "-o", "jsonpath={.items[0].status.podIP}"];
    let direct = format!("http://{}:8080/", subject.kubectl(&pod, "")?.trim());
    let (alone, _) = wrk(subject, &direct, "-c1")?;
    let (through, _) = wrk(subject, GATEWAY, "-c1")?;
    let (_, rate) = wrk(subject, GATEWAY, "-c32")?;
    Ok(Figures::from([(Figure::AddedLatency, through - alone), (Figure::GatewayRate, rate)]))
}

/// The median latency in milliseconds and the requests per second.
fn wrk(subject: &Subject, url: &str, connections: &str) -> Result<(f64, f64)> {
    let threads = if connections == "-c1" { "-t1" } else { "-t2" };
    let mut command: Command = subject.enter(Path::new("wrk"));
    command
        .args([threads, connections, WRK_SECONDS, "--latency", "-H"])
        .arg(format!("Host: {HOST}"))
        .arg(url);
    let text = output(command, "")?;
    print!("{text}");
    anyhow::ensure!(!text.contains("Non-2xx"), "answers were no successes");
    let median =
        text.lines().find_map(|line| line.trim().strip_prefix("50%")).context("wrk printed no median")?;
    Ok((milliseconds(median.trim())?, after(&text, "Requests/sec:").context("wrk printed no rate")?))
}

fn milliseconds(text: &str) -> Result<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .with_context(|| format!("{text:?} is no time"))?;
    Ok(number.parse::<f64>()? * factor)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn times_have_units() {
        let check =
            |text: &str, expect: f64| assert!((milliseconds(text).unwrap() - expect).abs() < 1e-9, "{text}");
        check("88.00us", 0.088);
        check("1.50ms", 1.5);
        check("2.00s", 2000.0);
    }
}
