//! What a developer runs: `cargo xtask tidy | test | conformance | bench | codegen`.

mod cluster;
mod codegen;
mod conformance;
mod kit;
mod scenario;
mod test;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Clipper's own tools")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks the structure: dependency arrows, sizes, paths named in ARCHITECTURE.md, words that layers must not know.
    Tidy,
    /// Installs what the tests need and runs all of them, in the order of CI.
    Test(test::Options),
    /// Drives a cluster with the real kubectl as people do (needs Go for the kit).
    Scenario(scenario::Options),
    /// Runs lists of the official suite against a cluster in a network namespace of its own (needs Go for the kit).
    Conformance(conformance::Options),
    /// Writes the schema table and the test vectors of `api` from upstream's Go types (needs Go).
    Codegen,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Tidy => tidy::run(&kit::root()),
        Command::Test(options) => test::run(&options),
        Command::Scenario(options) => scenario::run(&options),
        Command::Conformance(options) => conformance::run(&options),
        Command::Codegen => codegen::run(&kit::root()),
    }
}
