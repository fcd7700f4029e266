//! What a developer runs: `cargo xtask tidy | test | conformance | bench | codegen`.

mod bench;
mod cluster;
mod codegen;
mod conformance;
mod crash;
mod fuzz;
mod kit;
mod knative;
mod leftovers;
mod machine;
mod proto;
mod scenario;
mod swap;
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
    /// Rolls a Deployment out with upstream's scheduler and controllers on our API server, and with ours on theirs (needs Go for the kit).
    Swap(swap::Options),
    /// Runs lists of the official suite against a cluster in a network namespace of its own (needs Go for the kit).
    Conformance(conformance::Options),
    /// Kills a server under load, again and again: it must lose nothing.
    Crash(crash::Options),
    /// Shows limits on a machine with cgroup v2 alone, emulated in software (needs qemu and Go for the kit).
    Machine(machine::Options),
    /// Measures what is promised and writes docs/benchmarks.md (needs Go for the kit).
    Bench(bench::Options),
    /// Feeds every decoder with nonsense for a while (needs a C++ compiler for libFuzzer).
    Fuzz(fuzz::Options),
    /// Writes the schema table and the test vectors of `api` from upstream's Go types (needs Go).
    Codegen,
    /// Writes the code of the gRPC interfaces that Clipper is a client of.
    Proto,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Tidy => tidy::run(&kit::root()),
        Command::Test(options) => test::run(&options),
        Command::Scenario(options) => scenario::run(&options),
        Command::Swap(options) => swap::run(&options),
        Command::Conformance(options) => conformance::run(&options),
        Command::Crash(options) => crash::run(&options),
        Command::Machine(options) => machine::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Codegen => codegen::run(&kit::root()),
        Command::Proto => proto::run(&kit::root(), false),
    }
}
