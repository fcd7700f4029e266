//! Clipper: Kubernetes in one binary. This crate reads settings, makes keys, wires the parts and supervises them.

mod address;
mod backup;
mod bootstrap;
mod cli;
mod components;
mod config;
mod control_plane;
mod control_socket;
mod demo;
mod encryption;
mod images;
mod instance;
mod knative;
mod kubeconfig;
mod late;
mod local_node;
mod log;
mod pki;
mod pod_network;
mod why;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os())
}
