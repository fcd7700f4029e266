//! Every decoder of untrusted bytes, fed by libFuzzer. `cargo xtask fuzz` builds this with coverage and runs each target for a while.
//!
//! One program holds all targets, so that everything is compiled once; `CLIPPER_FUZZ_TARGET` names the one that runs.

#![no_main]

mod targets;

use std::sync::OnceLock;

static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();

fn chosen() -> fn(&[u8]) {
    let name = std::env::var("CLIPPER_FUZZ_TARGET").unwrap_or_default();
    match targets::TARGETS.iter().find(|(own, _)| *own == name) {
        Some((_, run)) => *run,
        None => {
            for (name, _) in targets::TARGETS {
                println!("{name}");
            }
            std::process::exit(if name == "list" { 0 } else { 2 });
        }
    }
}

libfuzzer_sys::fuzz_target!(
    init: {
        CHOSEN.get_or_init(chosen);
    },
    |data: &[u8]| {
        if let Some(run) = CHOSEN.get() {
            run(data);
        }
    }
);
