//! Upstream's parts in the place of ours, and ours in theirs: the same Deployment rolls out, driven by the real kubectl.

mod ours;
mod theirs;

use crate::cluster::build;
use crate::kit::{output, program};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const NAMESPACE: &str = "swap";
const DEPLOYMENT: &str = "deployment/web";
/// How long a rollout may take.
const ROLLOUT_TIMEOUT: &str = "--timeout=120s";
/// How long nothing may happen where nobody does the work.
const IDLE_TIMEOUT: &str = "--timeout=3s";
/// How much of a component's log is told when something failed.
const LOG_BYTES_TOLD: usize = 3000;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'nginx:1.28'}]}
";

/// What to run.
#[derive(Args, Default)]
pub struct Options {
    /// Only the swap of this name: `theirs` (upstream's scheduler and controllers on our API server) or `ours` (the reverse).
    #[arg(long)]
    only: Option<String>,
    /// This binary instead of a release build.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Runs both swaps.
///
/// # Errors
/// What did not roll out, and the end of the components' logs.
pub fn run(options: &Options) -> Result<()> {
    crate::kit::ensure()?;
    crate::kit::ensure_upstream()?;
    let binary = options.binary.clone().map_or_else(build, Ok)?;
    let swaps: [(&str, fn(&Path, &mut Parts) -> Result<()>); 2] =
        [("theirs", theirs::run), ("ours", ours::run)];
    let is_wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let mut passed = 0;
    for (name, swap) in swaps.into_iter().filter(|(name, _)| is_wanted(name)) {
        let began = Instant::now();
        let mut parts = Parts::new()?;
        if let Err(error) = swap(&binary, &mut parts) {
            bail!("swap {name}: {error:#}\n{}", parts.logs());
        }
        println!("swap {name}: ok ({:.1} s)", began.elapsed().as_secs_f64());
        passed += 1;
    }
    ensure!(passed > 0, "there is no such swap: {:?}", options.only);
    Ok(())
}

/// Components that were started for a swap. Dropped, they end.
struct Parts {
    logs: tempfile::TempDir,
    running: Vec<(String, Child)>,
}

impl Parts {
    fn new() -> Result<Self> {
        Ok(Self { logs: tempfile::tempdir()?, running: Vec::new() })
    }

    /// A folder for what the components need.
    fn folder(&self) -> &Path {
        self.logs.path()
    }

    fn start(&mut self, name: &str, mut command: Command) -> Result<()> {
        let log = File::create(self.logs.path().join(name))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    /// Ends them.
    ///
    /// # Errors
    /// One of them had ended by itself.
    fn end(&mut self) -> Result<()> {
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}");
            }
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// The end of what each has said.
    fn logs(&self) -> String {
        let end = |(name, _): &(String, Child)| {
            let text = std::fs::read(self.logs.path().join(name)).unwrap_or_default();
            let from = text.len().saturating_sub(LOG_BYTES_TOLD);
            format!("-- {name}:\n{}\n", String::from_utf8_lossy(&text[from..]))
        };
        self.running.iter().map(end).collect()
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The real kubectl in the namespace of the swap. `enter` makes a command where the server is reachable.
struct Kubectl<'a> {
    enter: &'a (dyn Fn(&Path) -> Command + Sync),
    kubeconfig: PathBuf,
}

impl Kubectl<'_> {
    fn run(&self, words: &[&str], input: &str) -> Result<String> {
        let mut command = (self.enter)(&program("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", NAMESPACE]).args(words);
        output(command, input)
    }

    /// Applies the Deployment and shows that nothing comes of it as long as nobody does the work.
    fn apply_in_vain(&self) -> Result<()> {
        self.run(&["create", "namespace", NAMESPACE], "")?;
        self.run(&["apply", "-f", "-"], WEB)?;
        let status = self.run(&["rollout", "status", DEPLOYMENT, IDLE_TIMEOUT], "");
        ensure!(status.is_err(), "the deployment rolls out although nobody should do it");
        let made = self.run(&["get", "replicasets,pods", "-o", "name"], "")?;
        ensure!(made.trim().is_empty(), "somebody made {made}");
        Ok(())
    }

    /// Rolls it out, changes it, and takes the change back.
    fn rolls_out(&self) -> Result<()> {
        let available = || -> Result<()> {
            self.run(&["rollout", "status", DEPLOYMENT, ROLLOUT_TIMEOUT], "")?;
            let ready = self.run(&["get", DEPLOYMENT, "-o", "jsonpath={.status.availableReplicas}"], "")?;
            ensure!(ready == "2", "{ready} pods are available, not 2");
            Ok(())
        };
        let version = || -> Result<String> {
            let newest = "jsonpath={.spec.template.spec.containers[0].env[0].value}";
            self.run(&["get", DEPLOYMENT, "-o", newest], "")
        };
        available().context("the first rollout")?;
        self.run(&["set", "env", DEPLOYMENT, "VERSION=2"], "")?;
        available().context("the second rollout")?;
        let history = self.run(&["rollout", "history", DEPLOYMENT], "")?;
        ensure!(history.lines().any(|line| line.trim_start().starts_with('2')), "no revision 2 in {history}");
        ensure!(version()? == "2", "the change is not there");
        self.run(&["rollout", "undo", DEPLOYMENT], "")?;
        available().context("the rollout back")?;
        ensure!(version()?.is_empty(), "the change was not taken back");
        Ok(())
    }
}
