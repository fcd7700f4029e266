//! The shim of one sandbox: the parent of its containers' processes, which outlives the daemon.
//!
//! It holds the sandbox's namespaces, starts programs, keeps their streams and writes their logs, reaps them and writes down how they
//! ended, and obeys a socket ([`shim`], the library, holds the words). One thread, one loop: start at [`serve`]. `child` is what happens between fork and
//! exec, `root` the mounts, `process` the confinement, `log` the log format, `sys` the system calls.
//!
//! It never pulls images, never makes networks or control groups, and decides nothing: the daemon says everything, resolved.
//!
//! Started as `shim DIRECTORY` with the listening socket as descriptor 0.

mod child;
mod connection;
mod container;
mod log;
mod process;
mod root;
mod serve;
mod sys;

fn main() {
    let Some(directory) = std::env::args().nth(1) else {
        sys::exit(2);
    };
    std::panic::set_hook(Box::new(move |panic| {
        // Nobody reads our standard error, and who looks for a lost sandbox looks in its directory.
        let _ = std::fs::write(format!("{directory}/shim.panic"), panic.to_string());
    }));
    match serve::serve() {
        Ok(()) => sys::exit(0),
        Err(error) => panic!("the shim's loop failed: {error}"),
    }
}
