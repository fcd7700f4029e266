//! The process's log: to stderr, text or JSON.

use tracing_subscriber::EnvFilter;

/// Starts the log. `verbose` 0 shows what a person would want to know in a quiet cluster; 1 details; 2 everything of ours.
/// `CLIPPER_LOG` overrules it with a filter in tracing's own form.
pub fn start(json: bool, verbose: u8) {
    let default = match verbose {
        0 => "info",
        1 => "debug,hyper=info,rustls=info,h2=info",
        _ => "trace,hyper=debug,rustls=debug,h2=debug",
    };
    let filter = EnvFilter::try_from_env("CLIPPER_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start (tests) keeps the first log.
    let _ = if json { log.json().try_init() } else { log.try_init() };
}
