//! The loop: waits for the daemon, children and streams, and does what they ask.

use crate::child::{self, Child, Pids, Report};
use crate::connection::Connection;
use crate::container::{Container, Phase, kill_all};
use crate::root::failed;
use crate::sys;
use shim::{Answer, Call, Exec, Failure, Message, Notice, Reply, Request, Sandbox, Start};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// One read of a stream: a pipe's whole default capacity.
const READ_BYTES_MAX: usize = 64 * 1024;

/// What a descriptor that became ready means.
#[derive(Clone, Copy)]
enum Token {
    Listener,
    Signals,
    Connection(u64),
    Report(usize),
    ExecReport(usize),
    Output(usize, usize),
    Stdin(usize),
    AttachedStdin(usize, usize),
    AttachedOutput(usize, usize, usize),
    Memory(usize),
}

/// A program that runs in a container beside its own.
struct ExecProcess {
    request: u64,
    connection: u64,
    pid: i32,
    pidfd: OwnedFd,
    /// Until it runs: where it reports, and its terminal once it has told.
    report: Option<(OwnedFd, bool)>,
    master: Option<OwnedFd>,
}

/// The namespaces of the sandbox.
struct Namespaces {
    own_pids: OwnedFd,
    host_pid: bool,
    pause: Option<(i32, OwnedFd)>,
}

struct Shim {
    listener: OwnedFd,
    signals: OwnedFd,
    connections: BTreeMap<u64, Connection>,
    connections_made: u64,
    containers: Vec<Container>,
    execs: Vec<ExecProcess>,
    namespaces: Option<Namespaces>,
    leaving: Option<(u64, u64)>,
    buffer: Vec<u8>,
}

/// Serves until told to leave.
#[allow(unsafe_code)]
pub fn serve() -> io::Result<()> {
    // SAFETY: descriptor 0 is the listening socket that we were started with; nothing else uses it.
    let inherited = unsafe { OwnedFd::from_raw_fd(0) };
    let listener = sys::duplicate(inherited.as_fd())?;
    std::mem::forget(inherited); // the standard streams stay taken, so that no other descriptor becomes one
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    (0..3).try_for_each(|stream: RawFd| sys::duplicate_to(null.as_fd(), stream))?;
    std::env::set_current_dir("/")?;
    sys::new_session();
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    // Programs of a container that join our PID namespace must not read our memory or descriptors.
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    // The daemon does without huge pages, and we inherit that; what runs in containers decides for itself.
    sys::prctl(libc::PR_SET_THP_DISABLE, 0)?;
    let mut shim = Shim {
        listener,
        signals: sys::signals()?,
        connections: BTreeMap::new(),
        connections_made: 0,
        containers: Vec::new(),
        execs: Vec::new(),
        namespaces: None,
        leaving: None,
        buffer: vec![0; READ_BYTES_MAX],
    };
    while !shim.has_left() {
        shim.turn()?;
    }
    Ok(())
}

impl Shim {
    /// Waits once and handles what came.
    fn turn(&mut self) -> io::Result<()> {
        let (mut fds, tokens) = self.interests();
        match sys::poll(&mut fds) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        // Exits last: by then what the child reported has been read.
        let mut exits = false;
        for (fd, token) in fds.iter().zip(&tokens).filter(|(fd, _)| fd.revents != 0) {
            match *token {
                Token::Signals => exits = true,
                token => self.handle(token, fd.revents),
            }
        }
        if exits {
            self.reap();
        }
        self.sweep();
        Ok(())
    }

    /// Everything to wait for now.
    fn interests(&self) -> (Vec<libc::pollfd>, Vec<Token>) {
        let (mut fds, mut tokens) = (Vec::new(), Vec::new());
        let mut add = |fd: &OwnedFd, events: i16, token| {
            fds.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
            tokens.push(token);
        };
        add(&self.listener, libc::POLLIN, Token::Listener);
        add(&self.signals, libc::POLLIN, Token::Signals);
        for (number, connection) in &self.connections {
            let write = if connection.is_waiting() { libc::POLLOUT } else { 0 };
            add(&connection.socket, libc::POLLIN | write, Token::Connection(*number));
        }
        for (index, container) in self.containers.iter().enumerate() {
            if let Phase::Starting { report, .. } = &container.phase {
                add(report, libc::POLLIN, Token::Report(index));
            }
            for stream in 0..2 {
                if let Some(output) = &container.outputs[stream]
                    && container.may_read(stream)
                {
                    add(output, libc::POLLIN, Token::Output(index, stream));
                }
            }
            if let Some(stdin) = &container.stdin
                && container.is_typing()
            {
                add(stdin, libc::POLLOUT, Token::Stdin(index));
            }
            if let Some(memory) = &container.memory {
                add(&memory.fd, memory.wake, Token::Memory(index));
            }
            for (nth, attached) in container.attached.iter().enumerate() {
                if let Some(stdin) = &attached.stdin
                    && container.may_type()
                {
                    add(stdin, libc::POLLIN, Token::AttachedStdin(index, nth));
                }
                for stream in 0..2 {
                    if let Some(output) = &attached.outputs[stream] {
                        // Without events, only its closing wakes us.
                        let write = if attached.waits(stream) { libc::POLLOUT } else { 0 };
                        add(output, write, Token::AttachedOutput(index, nth, stream));
                    }
                }
            }
        }
        for (index, exec) in self.execs.iter().enumerate() {
            if let Some((report, _)) = &exec.report {
                add(report, libc::POLLIN, Token::ExecReport(index));
            }
        }
        (fds, tokens)
    }

    fn handle(&mut self, token: Token, events: i16) {
        match token {
            Token::Listener => {
                if let Ok(socket) = sys::accept(self.listener.as_fd()) {
                    self.connections_made += 1;
                    self.connections.insert(self.connections_made, Connection::new(socket));
                }
            }
            Token::Signals => {}
            Token::Connection(number) => self.converse(number),
            Token::Report(index) => self.hear_container(index),
            Token::ExecReport(index) => self.hear_exec(index),
            Token::Output(index, stream) => {
                let mut buffer = std::mem::take(&mut self.buffer);
                self.containers[index].read(stream, &mut buffer);
                self.buffer = buffer;
            }
            Token::Stdin(index) => self.containers[index].feed(),
            Token::AttachedStdin(index, nth) => {
                let mut buffer = std::mem::take(&mut self.buffer);
                self.containers[index].type_from(nth, &mut buffer);
                self.buffer = buffer;
            }
            Token::AttachedOutput(index, nth, stream) => {
                let attached = &mut self.containers[index].attached[nth];
                match events & (libc::POLLERR | libc::POLLNVAL) != 0 {
                    true => attached.outputs[stream] = None,
                    false => attached.flush(stream),
                }
            }
            Token::Memory(index) => {
                if self.containers[index].had_memory_kill() {
                    let container = self.containers[index].id.clone();
                    self.notify(&Notice::OutOfMemory { container });
                }
            }
        }
    }

    /// Reads a connection and does what it asks.
    fn converse(&mut self, number: u64) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let alive = self.connections.get_mut(&number).is_some_and(|c| c.flush() && c.fill(&mut buffer));
        self.buffer = buffer;
        // What came before the end is still done.
        loop {
            match self.connections.get_mut(&number).map(Connection::next) {
                Some(Ok(Some(request))) => self.obey(number, request),
                Some(Ok(None)) if alive => return,
                _ => break,
            }
        }
        self.connections.remove(&number);
    }

    fn obey(&mut self, connection: u64, Request { id, call }: Request) {
        let result = match call {
            Call::Sandbox(sandbox) => self.enter(&sandbox).map(|()| Answer::Done),
            Call::Start(start) => match self.start(connection, id, *start) {
                Ok(()) => return, // answered when its program runs
                Err(failure) => Err(failure),
            },
            Call::Exec(exec) => match self.exec(connection, id, &exec) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
            Call::Kill { container, signal, all } => {
                self.kill(&container, signal, all).map(|()| Answer::Done)
            }
            Call::KillExec { exec } => {
                if let Some(exec) =
                    self.execs.iter().find(|e| e.request == exec && e.connection == connection)
                {
                    // It may have ended by itself.
                    let _ = sys::pidfd_kill(exec.pidfd.as_fd(), libc::SIGKILL);
                }
                Ok(Answer::Done)
            }
            Call::Attach { container, streams } => {
                let streams = self.take_streams(connection, streams);
                self.attach(&container, streams).map(|()| Answer::Done)
            }
            Call::Resize { container, width, height } => {
                self.running(&container).and_then(|c| c.resize(width, height)).map(|()| Answer::Done)
            }
            Call::ReopenLog { container } => {
                self.running(&container).and_then(Container::reopen_log).map(|()| Answer::Done)
            }
            Call::List => Ok(Answer::Running {
                pid: std::process::id(),
                containers: self.containers.iter().filter_map(Container::running).collect(),
            }),
            Call::Shutdown => {
                self.leave(connection, id);
                return;
            }
        };
        self.reply(connection, id, result, Vec::new());
    }

    fn take_streams(&mut self, connection: u64, streams: shim::Streams) -> [Option<OwnedFd>; 3] {
        self.connections.get_mut(&connection).map(|c| c.take_streams(streams)).unwrap_or_default()
    }

    fn reply(&mut self, connection: u64, id: u64, result: Result<Answer, Failure>, fds: Vec<OwnedFd>) {
        let message = Message::Reply(Reply { id, result });
        if self.connections.get_mut(&connection).is_some_and(|c| !c.send(&message, fds)) {
            self.connections.remove(&connection);
        }
    }

    fn notify(&mut self, notice: &Notice) {
        #[derive(serde::Serialize)]
        enum Outgoing<'a> {
            Notice(&'a Notice),
        }
        self.connections.retain(|_, connection| connection.send(&Outgoing::Notice(notice), Vec::new()));
    }

    fn running(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers
            .iter_mut()
            .find(|c| c.id == id && !matches!(c.phase, Phase::Ended))
            .ok_or_else(|| Failure::new(format!("container {id:?} is not running")))
    }

    /// Enters the sandbox's namespaces. Whatever fails, the daemon throws this shim away.
    fn enter(&mut self, sandbox: &Sandbox) -> Result<(), Failure> {
        if self.namespaces.is_some() {
            return Err(Failure::new("the sandbox exists already"));
        }
        let open = |path: &str| std::fs::File::open(path).map(OwnedFd::from);
        let own_pids = open("/proc/self/ns/pid").map_err(failed("opening our PID namespace"))?;
        if let Some(network) = &sandbox.network {
            open(network)
                .and_then(|fd| sys::setns(fd.as_fd(), libc::CLONE_NEWNET))
                .map_err(failed(format_args!("joining the network namespace {network}")))?;
        }
        let mut fresh = 0;
        if sandbox.hostname.is_some() {
            fresh |= libc::CLONE_NEWUTS;
        }
        if !sandbox.host_ipc {
            fresh |= libc::CLONE_NEWIPC;
        }
        if fresh != 0 {
            sys::unshare(fresh).map_err(failed("unshare"))?;
        }
        let mut sysctls = sandbox.sysctls.clone();
        if let Some(name) = &sandbox.hostname {
            sysctls.push(("kernel/hostname".to_owned(), name.clone()));
        }
        for (name, value) in &sysctls {
            std::fs::write(format!("/proc/sys/{name}"), value)
                .map_err(failed(format_args!("setting sysctl {name:?} to {value:?}")))?;
        }
        let mut pause = None;
        if sandbox.shared_pid && !sandbox.host_pid {
            let Child { pid, pidfd, report } = child::pause()?;
            // It only mounts an empty directory, so waiting for it is short.
            match hear(&report) {
                Ok(Some((Report::Ready(_), _))) => pause = Some((pid, pidfd)),
                Ok(Some((Report::Failed(failure), _))) => return Err(failure),
                _ => return Err(Failure::new("the sandbox's init ended")),
            }
        }
        self.namespaces = Some(Namespaces { own_pids, host_pid: sandbox.host_pid, pause });
        Ok(())
    }

    fn start(&mut self, connection: u64, request: u64, start: Start) -> Result<(), Failure> {
        let namespaces = self.namespaces.as_ref().ok_or_else(|| Failure::new("there is no sandbox yet"))?;
        if self.leaving.is_some() {
            return Err(Failure::new("the sandbox is being stopped"));
        }
        if self.containers.iter().any(|c| c.id == start.container) {
            return Err(Failure::new(format!("container {:?} was started already", start.container)));
        }
        let pids = match (&namespaces.pause, namespaces.host_pid) {
            (_, true) => Pids::Host,
            (Some((_, init)), false) => Pids::Join(init.as_fd(), namespaces.own_pids.as_fd()),
            (None, false) => Pids::New,
        };
        let own_pids = matches!(pids, Pids::New);
        let (log, mut pipes) = Container::streams(&start)?;
        let theirs = std::mem::take(&mut pipes.theirs);
        let child = child::container(&start, theirs, pids)?;
        self.containers.push(Container::new(start, child, log, pipes, own_pids, (connection, request)));
        Ok(())
    }

    /// A container's child reported, or its channel closed.
    fn hear_container(&mut self, index: usize) {
        let container = &mut self.containers[index];
        let Phase::Starting { connection, request, report, ready } = &mut container.phase else { return };
        let (connection, request) = (*connection, *request);
        match hear(report) {
            Ok(Some((Report::Ready(user), master))) => {
                *ready = true;
                // Without its terminal the program would hang; it is killed and told.
                if let Err(error) = container.ready(user, master) {
                    container.fail(failed("taking the terminal")(error));
                    let _ = sys::pidfd_kill(container.pidfd.as_fd(), libc::SIGKILL);
                }
            }
            Ok(Some((Report::Failed(failure), _))) => {
                *ready = false;
                container.fail(failure);
            }
            Ok(None) if *ready => {
                container.phase = Phase::Running;
                if let Some(running) = container.running() {
                    // To everybody: who asked may be gone, and another may have taken over.
                    self.notify(&Notice::Started(running.clone()));
                    self.reply(connection, request, Ok(Answer::Started(running)), Vec::new());
                }
            }
            // It reported a failure, or was killed before it could: its end tells, with `reap`.
            _ => {}
        }
    }

    fn exec(&mut self, connection: u64, request: u64, exec: &Exec) -> Result<(), Failure> {
        let streams = self.take_streams(connection, exec.streams);
        let container = self
            .containers
            .iter()
            .find(|c| c.id == exec.container && matches!(c.phase, Phase::Running))
            .ok_or_else(|| Failure::new(format!("container {:?} is not running", exec.container)))?;
        let namespaces = self.namespaces.as_ref().ok_or_else(|| Failure::new("there is no sandbox yet"))?;
        let pids = match namespaces.host_pid {
            true => Pids::Host,
            false => Pids::Join(container.pidfd.as_fd(), namespaces.own_pids.as_fd()),
        };
        let user = container.runs_as.clone().unwrap_or_default();
        let Child { pid, pidfd, report } = child::exec(exec, &user, streams, container.pidfd.as_fd(), pids)?;
        let report = Some((report, false));
        self.execs.push(ExecProcess { request, connection, pid, pidfd, report, master: None });
        Ok(())
    }

    fn hear_exec(&mut self, index: usize) {
        let exec = &mut self.execs[index];
        let Some((report, ready)) = &mut exec.report else { return };
        let (connection, request) = (exec.connection, exec.request);
        match hear(report) {
            Ok(Some((Report::Ready(_), master))) => {
                *ready = true;
                exec.master = master;
            }
            Ok(None) if *ready => {
                exec.report = None;
                let master = exec.master.take().into_iter().collect();
                self.reply(connection, request, Ok(Answer::Executing), master);
            }
            Ok(Some((Report::Failed(failure), _))) => {
                exec.report = None;
                exec.request = 0; // its end is of no interest any more
                self.reply(connection, request, Err(failure), Vec::new());
            }
            _ => {
                exec.report = None;
                exec.request = 0;
                self.reply(
                    connection,
                    request,
                    Err(Failure::program(128, "the process was killed before it could run")),
                    Vec::new(),
                );
            }
        }
    }

    fn kill(&mut self, id: &str, signal: i32, all: bool) -> Result<(), Failure> {
        let container = self.running(id)?;
        if all && !container.own_pids {
            kill_all(&container.cgroup);
        }
        match sys::pidfd_kill(container.pidfd.as_fd(), signal) {
            // It has ended and is about to be reaped.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.map_err(failed("kill")),
        }
    }

    fn attach(&mut self, id: &str, streams: [Option<OwnedFd>; 3]) -> Result<(), Failure> {
        for fd in streams.iter().flatten() {
            sys::set_nonblocking(fd.as_fd()).map_err(failed("attach"))?;
        }
        self.running(id)?.attach(streams);
        Ok(())
    }

    /// Kills everything; [`Self::has_left`] tells when it is gone.
    fn leave(&mut self, connection: u64, id: u64) {
        self.leaving = Some((connection, id));
        for container in &self.containers {
            if !matches!(container.phase, Phase::Ended) {
                let _ = sys::pidfd_kill(container.pidfd.as_fd(), libc::SIGKILL);
            }
            kill_all(&container.cgroup);
        }
        for exec in &self.execs {
            let _ = sys::pidfd_kill(exec.pidfd.as_fd(), libc::SIGKILL);
        }
        if let Some((_, init)) = self.namespaces.as_ref().and_then(|n| n.pause.as_ref()) {
            let _ = sys::pidfd_kill(init.as_fd(), libc::SIGKILL);
        }
    }

    fn has_left(&mut self) -> bool {
        let Some((connection, id)) = self.leaving else { return false };
        let alive = self.containers.iter().any(|c| !matches!(c.phase, Phase::Ended))
            || !self.execs.is_empty()
            || self.namespaces.as_ref().is_some_and(|n| n.pause.is_some());
        if alive {
            return false;
        }
        self.reply(connection, id, Ok(Answer::Done), Vec::new());
        true
    }

    /// Takes ended children.
    fn reap(&mut self) {
        // The descriptor only wakes us; how many ended is for waitpid to say.
        let mut signals = [0; 512];
        let _ = sys::read(self.signals.as_fd(), &mut signals);
        while let Some((pid, exit_code)) = sys::reap() {
            if let Some(index) =
                self.containers.iter().position(|c| c.pid == pid && !matches!(c.phase, Phase::Ended))
            {
                self.end_container(index, exit_code);
            } else if let Some(index) = self.execs.iter().position(|e| e.pid == pid) {
                while self.execs[index].report.is_some() {
                    self.hear_exec(index);
                }
                let exec = self.execs.swap_remove(index);
                if exec.request != 0 {
                    self.notify(&Notice::ExecEnded { exec: exec.request, exit_code });
                }
            } else if let Some(namespaces) = &mut self.namespaces
                && namespaces.pause.as_ref().is_some_and(|(init, _)| *init == pid)
            {
                namespaces.pause = None;
            }
        }
    }

    fn end_container(&mut self, index: usize, exit_code: i32) {
        // What it reported before it ended comes first. The channel is closed by now, so this ends.
        let mut reports = 0;
        while reports < 3 && matches!(self.containers[index].phase, Phase::Starting { .. }) {
            self.hear_container(index);
            reports += 1;
        }
        let asked = match &self.containers[index].phase {
            Phase::Starting { connection, request, .. } => Some((*connection, *request)),
            _ => None,
        };
        if asked.is_some() {
            self.containers[index].fail_if_silent();
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let ended = self.containers[index].end(exit_code, &mut buffer);
        self.buffer = buffer;
        if let Some((connection, request)) = asked {
            let message = ended.start_error.clone().unwrap_or_default();
            self.reply(connection, request, Err(Failure::program(ended.exit_code, message)), Vec::new());
        }
        self.notify(&Notice::Ended(ended));
    }

    /// Lets go of what nobody needs.
    fn sweep(&mut self) {
        for container in &mut self.containers {
            container.attached.retain(|a| !a.is_over());
        }
        self.containers.retain(|c| !c.is_over());
    }
}

/// The next packet of a child's channel; `None` when it is closed.
fn hear(report: &OwnedFd) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
    let mut buffer = [0; 16 * 1024];
    let (length, fds) = sys::receive(report.as_fd(), &mut buffer)?;
    if length == 0 {
        return Ok(None);
    }
    let report = serde_json::from_slice::<Report>(&buffer[..length])?;
    Ok(Some((report, fds.into_iter().next())))
}
