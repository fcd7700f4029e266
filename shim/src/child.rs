//! The children that the shim forks: a container's first process, one more program in it, the init of a shared PID namespace.

use crate::root::{self, failed};
use crate::{process, sys};
use serde::{Deserialize, Serialize};
use shim::{Exec, Failure, Process, RunsAs, Start};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What a child tells the shim, each as one packet. The channel closes at exec: nothing after `Ready` means that the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// About to exec. With a terminal, its controlling side comes along.
    Ready(RunsAs),
    /// It will not run.
    Failed(Failure),
}

/// A child that was forked.
pub struct Child {
    /// Its number.
    pub pid: i32,
    /// It, whatever its number.
    pub pidfd: OwnedFd,
    /// Where it reports.
    pub report: OwnedFd,
}

/// Which PID namespace a child is the first of or joins.
#[derive(Clone, Copy)]
pub enum Pids<'a> {
    /// A new one.
    New,
    /// The machine's.
    Host,
    /// The one that this process is in; and back to our own.
    Join(BorrowedFd<'a>, BorrowedFd<'a>),
}

fn fork(
    pids: Pids<'_>,
    cgroup: Option<&str>,
    run: impl FnOnce(&OwnedFd) -> Failure,
) -> Result<Child, Failure> {
    let open = |path: &str| sys::open_in(sys::cwd(), Path::new(path), libc::O_PATH | libc::O_DIRECTORY, 0);
    let cgroup = cgroup.map(open).transpose().map_err(failed("opening the control group"))?;
    let cgroup = cgroup.as_ref().map(AsFd::as_fd);
    let (here, there) = sys::socketpair(libc::SOCK_SEQPACKET).map_err(failed("socketpair"))?;
    let forked = match pids {
        Pids::New => sys::clone(libc::CLONE_NEWPID as u64, cgroup),
        Pids::Host => sys::clone(0, cgroup),
        Pids::Join(target, own) => {
            sys::setns(target, libc::CLONE_NEWPID).map_err(failed("joining the PID namespace"))?;
            let forked = sys::clone(0, cgroup);
            if !matches!(forked, Ok(None)) {
                sys::setns(own, libc::CLONE_NEWPID).map_err(failed("leaving the PID namespace"))?;
            }
            forked
        }
    };
    match forked.map_err(failed("clone"))? {
        Some((pid, pidfd)) => Ok(Child { pid, pidfd, report: here }),
        None => {
            drop(here);
            let failure = run(&there);
            tell(&there, &Report::Failed(failure), &[]);
            sys::exit(1)
        }
    }
}

fn tell(channel: &OwnedFd, report: &Report, fds: &[BorrowedFd<'_>]) {
    if let Ok(text) = serde_json::to_vec(report) {
        // If the shim is gone there is nobody to tell, and the child ends in any case.
        let _ = sys::send(channel.as_fd(), &text, fds);
    }
}

/// Forks a container's first process.
pub fn container(start: &Start, streams: [Option<OwnedFd>; 3], pids: Pids<'_>) -> Result<Child, Failure> {
    fork(pids, start.cgroup.born_in.as_deref(), |report| match first_process(start, streams, report) {
        Ok(never) => match never {},
        Err(failure) => failure,
    })
}

fn null() -> Result<OwnedFd, Failure> {
    sys::open_in(sys::cwd(), Path::new("/dev/null"), libc::O_RDWR, 0).map_err(failed("opening /dev/null"))
}

fn first_process(
    start: &Start,
    streams: [Option<OwnedFd>; 3],
    report: &OwnedFd,
) -> Result<std::convert::Infallible, Failure> {
    let confinement = process::prepare(&start.process, &start.cgroup)?;
    let null = null()?;
    let sources = root::take_sources(&start.mounts)?;
    sys::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP).map_err(failed("unshare"))?;
    root::enter(root::build(start, sources)?)?;
    root::hide(&start.masked_paths, &start.readonly_paths, start.root.read_only)?;
    let user = process::look_up(&start.user)?;
    let console = start.process.tty && !start.devices.is_empty();
    Err(finish(&start.process, &confinement, &user, streams, &null, report, console)?)
}

fn finish(
    program: &Process,
    confinement: &process::Confinement,
    user: &RunsAs,
    streams: [Option<OwnedFd>; 3],
    null: &OwnedFd,
    report: &OwnedFd,
    console: bool,
) -> Result<Failure, Failure> {
    let ready = Report::Ready(user.clone());
    if program.tty {
        let (master, slave) = process::open_terminal(user.uid)?;
        if console {
            root::console(slave.as_fd()).map_err(failed("making /dev/console"))?;
        }
        tell(report, &ready, &[master.as_fd()]);
    } else {
        process::set_streams(streams, null, user.uid)?;
        tell(report, &ready, &[]);
    }
    Ok(process::become_program(program, confinement, user))
}

/// Forks one more program into the container whose first process is `container`.
pub fn exec(
    exec: &Exec,
    user: &RunsAs,
    streams: [Option<OwnedFd>; 3],
    container: BorrowedFd<'_>,
    pids: Pids<'_>,
) -> Result<Child, Failure> {
    fork(pids, exec.cgroup.born_in.as_deref(), |report| {
        let run = || {
            let confinement = process::prepare(&exec.process, &exec.cgroup)?;
            let null = null()?;
            process::join(container)?;
            finish(&exec.process, &confinement, user, streams, &null, report, false)
        };
        run().unwrap_or_else(|failure| failure)
    })
}

/// Forks the init of a PID namespace that containers share: it only reaps, in an empty root and with no rights.
pub fn pause() -> Result<Child, Failure> {
    fork(Pids::New, None, |report| {
        let settle = || -> Result<(), Failure> {
            sys::reset_signals();
            sys::new_session();
            sys::set_name(c"pause");
            sys::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP).map_err(failed("unshare"))?;
            sys::mount(c"", c"/", c"", libc::MS_REC | libc::MS_SLAVE, c"")
                .map_err(failed("making the root private"))?;
            let empty =
                sys::new_filesystem("tmpfs", &[("mode".into(), "755".into())], sys::MOUNT_ATTR_RDONLY)
                    .map_err(failed("mounting an empty root"))?;
            let anywhere = sys::open_in(sys::cwd(), Path::new("/proc"), libc::O_PATH, 0)
                .map_err(failed("opening /proc"))?;
            sys::attach(empty.as_fd(), anywhere.as_fd()).map_err(failed("attaching an empty root"))?;
            root::enter(empty)?;
            sys::bound_capabilities(0).map_err(failed("dropping capabilities"))?;
            sys::set_capabilities(0).map_err(failed("dropping capabilities"))
        };
        if let Err(failure) = settle() {
            return failure;
        }
        tell(report, &Report::Ready(RunsAs::default()), &[]);
        // The channel closes here, which says "running" as exec would.
        // SIGCHLD is blocked from here on, so none is missed between looking and waiting.
        let _ = sys::signals();
        sys::close_all();
        loop {
            while sys::reap().is_some() {}
            sys::wait_for_child();
        }
    })
}
