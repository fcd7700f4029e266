//! Knative's figures: a request to a service at zero, and what the data plane adds to one that is warm.

use super::measure::footprint;
use super::rows::{Figure, Figures, after};
use super::subject::Subject;
use crate::kit::{kit, output};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Cold starts, of which the median and the slowest count.
const COLD_STARTS: usize = 20;
/// How long the data path is measured with each number of connections.
const WRK_SECONDS: &str = "-d5s";
/// Services at zero beside the one that is asked.
const OTHERS: u32 = 300;
/// Until nothing moves any more.
const SETTLE_SECONDS: u32 = 10;
/// How long events are sent at a time.
const EVENT_SECONDS: u32 = 10;
/// How long the last of them may take.
const TAKEN_MAX: Duration = Duration::from_secs(120);
/// Events that nobody takes.
const BACKLOG: f64 = 1_000_000.0;
/// What sends one: wrk's own language.
const POST: &str = r#"
wrk.method = "POST"
wrk.body = string.rep("x", 1024)
wrk.headers["Content-Type"] = "text/plain"
wrk.headers["Ce-Specversion"] = "1.0"
wrk.headers["Ce-Type"] = "letter"
wrk.headers["Ce-Source"] = "bench"
wrk.headers["Ce-Id"] = "1"
"#;
const EVENTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: sink}
data:
  nginx.conf: |
    worker_processes 1;
    events { worker_connections 64; }
    http {
      access_log off;
      keepalive_requests 100000000;
      client_max_body_size 2m;
      server {
        listen 8080;
        location /taken { stub_status; }
        location / { return 202; }
      }
    }
---
apiVersion: v1
kind: Pod
metadata: {name: sink, labels: {app: sink}}
spec:
  containers:
  - name: sink
    image: nginx:1.28
    volumeMounts: [{name: settings, mountPath: /etc/nginx/nginx.conf, subPath: nginx.conf}]
  volumes: [{name: settings, configMap: {name: sink}}]
---
apiVersion: v1
kind: Service
metadata: {name: sink}
spec: {selector: {app: sink}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: letters}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: taken}
spec:
  broker: letters
  subscriber: {ref: {apiVersion: v1, kind: Service, name: sink}}
";
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
    let times = cold_starts(subject)?;
    let (alone, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    let mut figures = Figures::from([(Figure::ColdStart, alone), (Figure::ColdStartMax, slowest)]);
    figures.extend(data_path(subject)?);
    figures.extend(among_many(subject, alone)?);
    subject.kubectl(&["delete", "ksvc", "--all"], "")?;
    figures.extend(events(subject)?);
    Ok(figures)
}

/// Milliseconds of requests to a service at zero, in order.
fn cold_starts(subject: &Subject) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..COLD_STARTS {
        at_zero(subject)?;
        let mut curl = subject.enter(Path::new("curl"));
        curl.args(["-sf", "-m", "30", "-o", "/dev/null", "-w", "%{time_total}", "-H"]);
        curl.arg(format!("Host: {HOST}")).arg(GATEWAY);
        let seconds: f64 = output(curl, "")?.trim().parse().context("curl printed no time")?;
        times.push(seconds * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    println!("cold starts in ms: {times:.0?}");
    Ok(times)
}

/// Waits until the service has no pod.
fn at_zero(subject: &Subject) -> Result<()> {
    let gone = ["wait", "pod", "-l", "serving.knative.dev/service=hello", "--for=delete", "--timeout=120s"];
    subject.kubectl(&gone, "").map(drop)
}

/// What other services at zero cost.
fn among_many(subject: &Subject, alone: f64) -> Result<Figures> {
    let zero = r#"{"data":{"allow-zero-initial-scale":"true"}}"#;
    let patch =
        ["patch", "configmap", "config-autoscaler", "-n", "knative-serving", "--type=merge", "-p", zero];
    subject.kubectl(&patch, "")?;
    at_zero(subject)?;
    let [before, ..] = footprint(subject, SETTLE_SECONDS)?;
    let others = (0..OTHERS).fold(String::new(), |mut text, index| {
        let _ = write!(
            text,
            "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: other-{index}}}\nspec:\n  template:\n    \
             metadata: {{annotations: {{autoscaling.knative.dev/initial-scale: '0'}}}}\n    \
             spec: {{containers: [{{image: 'registry.knative.test/kn/helloworld:e2e'}}]}}\n"
        );
        text
    });
    subject.kubectl(&["apply", "-f", "-"], &others)?;
    subject.kubectl(&["wait", "ksvc", "--all", "--for=condition=Ready", "--timeout=300s"], "")?;
    at_zero(subject)?;
    let [after, ..] = footprint(subject, SETTLE_SECONDS)?;
    let times = cold_starts(subject)?;
    Ok(Figures::from([
        (Figure::ColdStartAmongMany, times[times.len() / 2] / alone),
        (Figure::KbPerService, (after - before) * 1024.0 / f64::from(OTHERS)),
    ]))
}

/// Events through a broker to a sink that takes all, and then a backlog that nobody takes.
fn events(subject: &Subject) -> Result<Figures> {
    subject.import(&kit().join("images/nginx.tar"))?;
    subject.kubectl(&["apply", "-f", "-"], EVENTS)?;
    subject.kubectl(&["wait", "pod/sink", "--for=condition=Ready", "--timeout=60s"], "")?;
    subject.kubectl(&["wait", "trigger/taken", "--for=condition=Ready", "--timeout=60s"], "")?;
    let address =
        ["get", "service", "broker-ingress", "-n", "knative-eventing", "-o", "jsonpath={.spec.clusterIP}"];
    let broker = format!("http://{}/default/letters", subject.kubectl(&address, "")?.trim());
    let sink = ["get", "pod", "sink", "-o", "jsonpath={.status.podIP}"];
    let sink = format!("http://{}:8080/taken", subject.kubectl(&sink, "")?.trim());
    let script = std::env::temp_dir().join(format!("event-{}.lua", std::process::id()));
    std::fs::write(&script, POST)?;
    let began = Instant::now();
    let sent = post(subject, &broker, &script, EVENT_SECONDS);
    let delivered = sent.and_then(|sent| {
        wait_until_taken(subject, &sink, sent.0)?;
        Ok((sent, began.elapsed().as_secs_f64()))
    });
    let ((sent, p99), seconds) = delivered?;
    let mut figures = Figures::from([(Figure::EventRate, sent / seconds), (Figure::EventAnswer, p99)]);
    subject.kubectl(&["delete", "pod", "sink", "--grace-period=1"], "")?;
    let [before, ..] = footprint(subject, SETTLE_SECONDS)?;
    let mut kept = 0.0;
    while kept < BACKLOG {
        kept += post(subject, &broker, &script, EVENT_SECONDS)?.0;
    }
    let [after, ..] = footprint(subject, SETTLE_SECONDS)?;
    figures.insert(Figure::Backlog, after - before);
    std::fs::remove_file(&script)?;
    subject.kubectl(&["delete", "broker/letters", "trigger/taken"], "")?;
    Ok(figures)
}

/// Posts events for some seconds: how many were acknowledged, and the 99th percentile of the answers in milliseconds.
fn post(subject: &Subject, broker: &str, script: &Path, seconds: u32) -> Result<(f64, f64)> {
    let mut command: Command = subject.enter(Path::new("wrk"));
    command.args(["-t2", "-c32", "--latency", "-s"]).arg(script).arg(format!("-d{seconds}s")).arg(broker);
    let text = output(command, "")?;
    print!("{text}");
    anyhow::ensure!(!text.contains("Non-2xx"), "events were refused");
    let p99 = text.lines().find_map(|line| line.trim().strip_prefix("99%")).context("wrk printed no p99")?;
    let line = text.lines().find(|line| line.contains("requests in")).context("wrk printed no count")?;
    let sent = line.split_whitespace().next().and_then(|own| own.parse().ok()).context("no count")?;
    Ok((sent, milliseconds(p99.trim())?))
}

/// Waits until the sink has taken this many events: what is under way when the producers stop may come on top.
fn wait_until_taken(subject: &Subject, sink: &str, sent: f64) -> Result<()> {
    let end = Instant::now() + TAKEN_MAX;
    loop {
        let mut curl = subject.enter(Path::new("curl"));
        curl.args(["-sf", "-m", "5"]).arg(sink);
        let text = output(curl, "")?;
        // `accepts handled requests`, the third line of nginx's own page; each look at it counts too.
        let taken: f64 = text
            .lines()
            .nth(2)
            .and_then(|line| line.split_whitespace().nth(2)?.parse().ok())
            .context("the sink does not say what it took")?;
        if taken >= sent {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "{taken} of {sent} events were taken");
    }
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
