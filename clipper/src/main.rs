//! Clipper: Kubernetes in one binary. This crate reads settings, makes keys, wires the parts and supervises them.

mod address;
mod bootstrap;
mod cli;
mod components;
mod config;
mod control_plane;
mod instance;
mod kubeconfig;
mod late;
mod log;
mod pki;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os())
}
