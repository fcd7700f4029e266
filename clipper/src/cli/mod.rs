//! The command line. Exit codes: 0 done, 1 failed, 2 usage, 3 another instance owns the data directory.

mod apart;
mod backup;
mod down;
mod image;
mod up;
mod why;

use crate::config::Flags;
use crate::instance::InstanceError;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_OWNED: u8 = 3;

#[derive(Parser)]
#[command(name = "clipper", version, about = "Kubernetes in one binary")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A whole node in the foreground: control plane, node agent, network.
    Up(Up),
    /// Control plane only.
    Server(Flags),
    /// A node that joins a control plane.
    Agent(Flags),
    /// The scheduler alone, for an API server elsewhere.
    Scheduler(apart::Apart),
    /// The controllers alone, for an API server elsewhere.
    Controllers(apart::Controllers),
    /// Stops what runs in a data directory and removes everything it made.
    Down(Down),
    /// Images of this node.
    Image(image::Image),
    /// The command line of Kubernetes.
    Kubectl(Rest),
    /// The command line of Knative.
    Kn(Rest),
    /// Says why an object is not what its spec asks.
    Why(why::Why),
    /// What the sample application's pods run.
    #[command(hide = true)]
    DemoApp,
    /// A consistent copy of the store, while running.
    Backup(backup::Copy),
    /// Puts a copy of the store back.
    Restore(backup::Copy),
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    flags: Flags,
    /// Applies the sample application and prints what to open.
    #[arg(long)]
    demo: bool,
}

#[derive(Args)]
pub(crate) struct Down {
    /// Everything the process keeps lies below it.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/clipper")]
    data_dir: PathBuf,
    /// Deletes the data too.
    #[arg(long)]
    purge: bool,
}

#[derive(Args)]
struct Rest {
    /// Arguments of the command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs the command line and says how the process is to exit.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let missing = |name: &str, _: &Rest| Err(Failure::Missing(name.to_owned()));
    let done = match &cli.command {
        Command::Up(up) => run_part(&up.flags, if up.demo { up::Part::Demo } else { up::Part::Up }),
        Command::Server(flags) => run_part(flags, up::Part::Server),
        Command::DemoApp => crate::demo::app::run().map_err(Failure::from),
        Command::Agent(flags) => resolve(flags).and_then(|_| Err(Failure::Missing("agent".to_owned()))),
        Command::Scheduler(own) => run_apart(own, || apart::scheduler(own)),
        Command::Controllers(own) => run_apart(&own.apart, || apart::controllers(own)),
        Command::Down(down) => down::run(down).map_err(Failure::from),
        Command::Image(image) => image::run(image).map_err(Failure::from),
        Command::Kubectl(rest) => missing("kubectl", rest),
        Command::Kn(rest) => missing("kn", rest),
        Command::Why(own) => why::run(own).map_err(Failure::from),
        Command::Backup(copy) => backup::backup(copy).map_err(Failure::from),
        Command::Restore(copy) => backup::restore(copy).map_err(Failure::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("clipper: {failure}");
            failure.code()
        }
    }
}

fn run_part(flags: &Flags, part: up::Part) -> Result<(), Failure> {
    Ok(up::run(&resolve(flags)?, part)?)
}

fn run_apart(own: &apart::Apart, run: impl FnOnce() -> anyhow::Result<()>) -> Result<(), Failure> {
    own.start_log().map_err(Failure::Usage)?;
    Ok(run()?)
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
enum Failure {
    /// The words are wrong.
    Usage(anyhow::Error),
    /// The command is not there yet.
    Missing(String),
    /// It was tried and did not work.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(error) | Self::Failed(error) => write!(f, "{error:#}"),
            Self::Missing(name) => {
                write!(f, "`clipper {name}` is not there yet in version {}", env!("CARGO_PKG_VERSION"))
            }
        }
    }
}

impl Failure {
    fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) | Self::Missing(_) => EXIT_USAGE,
            Self::Failed(error) => match error.downcast_ref::<InstanceError>() {
                Some(InstanceError::Owned { .. }) => EXIT_OWNED,
                _ => EXIT_FAILED,
            },
        })
    }
}

/// Settings from flags and file, and the log set up accordingly.
fn resolve(flags: &Flags) -> Result<crate::config::Config, Failure> {
    let host_name = nix::unistd::gethostname().unwrap_or_default();
    let config = flags.clone().resolve(&host_name.to_string_lossy()).map_err(Failure::Usage)?;
    crate::log::start(config.log_json, config.verbose);
    Ok(config)
}

/// One line for a wrong word; help and version as they are.
fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => {
            print!("{error}");
            ExitCode::SUCCESS
        }
        DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{error}");
            ExitCode::from(EXIT_USAGE)
        }
        _ => {
            let text = error.to_string();
            let line: Vec<_> =
                text.lines().take_while(|line| !line.starts_with("Usage")).map(str::trim).collect();
            eprintln!("clipper: {}", line.join(" ").trim().trim_start_matches("error: "));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_the_contract_are_understood() {
        let words = [
            "clipper",
            "up",
            "--demo",
            "--data-dir",
            "/d",
            "--node-ip",
            "10.0.0.1",
            "--api-port",
            "7443",
            "--store",
            "etcd",
            "--etcd-endpoints",
            "http://a,http://b",
            "-vv",
        ];
        let Command::Up(up) = Cli::try_parse_from(words).unwrap().command else { panic!("not up") };
        let config = up.flags.resolve("host").unwrap();
        assert_eq!((config.api_port, config.verbose), (7443, 2));
        let endpoints = vec!["http://a".to_owned(), "http://b".to_owned()];
        assert_eq!(config.store, crate::config::StoreChoice::Etcd { endpoints, ca: None, identity: None });
    }

    #[test]
    fn wrong_words_are_usage() {
        for words in [
            vec!["clipper", "up", "--nonsense"],
            vec!["clipper", "up", "--api-port", "x"],
            vec!["clipper", "fly"],
        ] {
            assert!(Cli::try_parse_from(words).is_err());
        }
    }
}
