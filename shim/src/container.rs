//! A container as the shim holds it: its process, its streams, its log, who is attached, how it ended.

use crate::log::{Log, Stream};
use crate::sys;
use shim::{Cgroup, EXIT_FILE, Ended, Failure, Running, RunsAs, Start};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Beyond this much output that an attached session has not taken, the program waits, as it would for a slow terminal.
const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// How much of each output is kept for the first who attaches to a container that has an input: the newest.
const EARLY_BYTES_MAX: usize = 16 * 1024;

/// No more killing rounds over a control group: each finds only processes that were born during the one before.
const KILL_ROUNDS_MAX: usize = 1000;

/// Where a container's first process is in its life.
pub enum Phase {
    /// Between fork and exec: who asked for it, and where the child reports.
    Starting { connection: u64, request: u64, report: OwnedFd, ready: bool },
    /// Its program runs.
    Running,
    /// It ended and that was told. Streams may still be draining.
    Ended,
}

/// A session that was attached.
pub struct Attached {
    /// What it types.
    pub stdin: Option<OwnedFd>,
    /// What it sees.
    pub outputs: [Option<OwnedFd>; 2],
    unsent: [Vec<u8>; 2],
}

impl Attached {
    /// A fresh one.
    pub fn new([stdin, stdout, stderr]: [Option<OwnedFd>; 3]) -> Self {
        Self { stdin, outputs: [stdout, stderr], unsent: [Vec::new(), Vec::new()] }
    }

    /// Whether output waits for it.
    pub fn waits(&self, stream: usize) -> bool {
        !self.unsent[stream].is_empty()
    }

    /// Writes what it takes.
    pub fn flush(&mut self, stream: usize) {
        while let Some(fd) = &self.outputs[stream]
            && !self.unsent[stream].is_empty()
        {
            match sys::write(fd.as_fd(), &self.unsent[stream]) {
                Ok(written) => {
                    self.unsent[stream].drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.outputs[stream] = None,
            }
        }
        self.unsent[stream] = Vec::new();
    }

    fn push(&mut self, stream: usize, bytes: &[u8]) {
        if self.outputs[stream].is_some() {
            self.unsent[stream].extend_from_slice(bytes);
            self.flush(stream);
        }
    }

    /// Nothing connects it any more.
    pub fn is_over(&self) -> bool {
        self.stdin.is_none() && self.outputs.iter().all(Option::is_none)
    }
}

/// How the kernel tells of memory kills.
pub struct MemoryWatch {
    /// v1: an eventfd. v2: the events file itself.
    pub fd: OwnedFd,
    /// v2 wakes with `POLLPRI`.
    pub wake: i16,
    kills: u64,
}

/// A container.
pub struct Container {
    /// Its id.
    pub id: String,
    directory: String,
    /// Its control groups.
    pub cgroup: Cgroup,
    /// Its first process.
    pub pid: i32,
    /// The same, whatever its number.
    pub pidfd: OwnedFd,
    /// Its processes die with the first.
    pub own_pids: bool,
    /// Where it is in its life.
    pub phase: Phase,
    started_ns: i64,
    /// Who it runs as, once known.
    pub runs_as: Option<RunsAs>,
    tty: bool,
    has_stdin: bool,
    stdin_once: bool,
    /// Where to write its input.
    pub stdin: Option<OwnedFd>,
    unread: Vec<u8>,
    /// Where its outputs come from; a terminal is the first.
    pub outputs: [Option<OwnedFd>; 2],
    log: Log,
    /// Who is attached.
    pub attached: Vec<Attached>,
    /// What a container with an input has said until somebody attached: who asks for a dialogue (`kubectl run -i`) can only
    /// attach once the program runs, and must not miss its first words. Upstream loses them.
    early: Option<[Vec<u8>; 2]>,
    /// Memory kills.
    pub memory: Option<MemoryWatch>,
    failure: Option<Failure>,
}

impl Container {
    /// What is needed before the fork: the log, and both ends of the pipes.
    pub fn streams(start: &Start) -> Result<(Log, Pipes), Failure> {
        let log = Log::open(start.log_path.clone())
            .map_err(crate::root::failed(format_args!("failed to open log file {:?}", start.log_path)))?;
        let pipes = Pipes::open(start).map_err(crate::root::failed("opening pipes"))?;
        Ok((log, pipes))
    }

    /// Takes over a child that was forked.
    pub fn new(
        start: Start,
        child: crate::child::Child,
        log: Log,
        pipes: Pipes,
        own_pids: bool,
        asked: (u64, u64),
    ) -> Self {
        let report = child.report;
        Self {
            memory: MemoryWatch::new(&start.cgroup).ok(),
            id: start.container,
            directory: start.directory,
            cgroup: start.cgroup,
            pid: child.pid,
            pidfd: child.pidfd,
            own_pids,
            phase: Phase::Starting { connection: asked.0, request: asked.1, report, ready: false },
            started_ns: 0,
            runs_as: None,
            tty: start.process.tty,
            has_stdin: start.stdin,
            early: start.stdin.then(Default::default),
            stdin_once: start.stdin_once,
            stdin: pipes.stdin,
            unread: Vec::new(),
            outputs: pipes.outputs,
            log,
            attached: Vec::new(),
            failure: None,
        }
    }

    /// The child will exec; `master` is its terminal.
    pub fn ready(&mut self, user: RunsAs, master: Option<OwnedFd>) -> io::Result<()> {
        self.runs_as = Some(user);
        self.started_ns = sys::now_ns();
        if let Some(master) = master {
            sys::set_nonblocking(master.as_fd())?;
            self.stdin = if self.has_stdin { Some(sys::duplicate(master.as_fd())?) } else { None };
            self.outputs = [Some(master), None];
        }
        Ok(())
    }

    /// The child will not exec.
    pub fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
    }

    /// The child ended before it could exec; if it did not say why, somebody killed it.
    pub fn fail_if_silent(&mut self) {
        let silent =
            || Failure::program(128, "the container's init was killed before it could run the program");
        self.failure.get_or_insert_with(silent);
    }

    /// What the daemon hears of it while it runs.
    pub fn running(&self) -> Option<Running> {
        matches!(self.phase, Phase::Running).then(|| Running {
            container: self.id.clone(),
            pid: self.pid,
            started_ns: self.started_ns,
            runs_as: self.runs_as.clone().unwrap_or_default(),
        })
    }

    /// Whether output should be read now: not while somebody attached has too much to take already.
    pub fn may_read(&self, stream: usize) -> bool {
        self.attached.iter().all(|a| a.unsent[stream].len() < UNREAD_BYTES_MAX)
    }

    /// Reads output once. `false` when nothing was there.
    pub fn read(&mut self, stream: usize, buffer: &mut [u8]) -> bool {
        let Some(fd) = &self.outputs[stream] else { return false };
        let which = if stream == 0 { Stream::Stdout } else { Stream::Stderr };
        match sys::read(fd.as_fd(), buffer) {
            Ok(length) if length > 0 => {
                self.log.write(which, &buffer[..length], sys::now_ns());
                for attached in &mut self.attached {
                    attached.push(stream, &buffer[..length]);
                }
                if let Some(early) = &mut self.early {
                    keep_newest(&mut early[stream], &buffer[..length]);
                }
                true
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                false
            }
            // A terminal that no process holds answers EIO.
            _ => {
                self.log.end(which, sys::now_ns());
                self.outputs[stream] = None;
                false
            }
        }
    }

    /// Takes in a session; the first also sees what was said before.
    pub fn attach(&mut self, streams: [Option<OwnedFd>; 3]) {
        let mut fresh = Attached::new(streams);
        for (stream, said) in self.early.take().into_iter().flatten().enumerate() {
            fresh.push(stream, &said);
        }
        self.attached.push(fresh);
    }

    /// Whether somebody's input should be read now.
    pub fn may_type(&self) -> bool {
        self.stdin.is_some() && self.unread.is_empty()
    }

    /// Whether input waits for the program.
    pub fn is_typing(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Takes input from an attached session.
    pub fn type_from(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(fd) = self.attached.get(index).and_then(|a| a.stdin.as_ref()) else { return };
        match sys::read(fd.as_fd(), buffer) {
            Ok(length) if length > 0 => {
                self.unread.extend_from_slice(&buffer[..length]);
                self.feed();
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            _ => {
                self.attached[index].stdin = None;
                if self.stdin_once && !self.tty {
                    self.stdin = None;
                }
            }
        }
    }

    /// Gives the program what it takes of its input.
    pub fn feed(&mut self) {
        while let Some(fd) = &self.stdin
            && !self.unread.is_empty()
        {
            match sys::write(fd.as_fd(), &self.unread) {
                Ok(written) => {
                    self.unread.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.stdin = None,
            }
        }
        self.unread = Vec::new();
    }

    /// Opens the log's path anew.
    pub fn reopen_log(&mut self) -> Result<(), Failure> {
        self.log.reopen().map_err(crate::root::failed("failed to reopen log file"))
    }

    /// Tells the terminal its size.
    pub fn resize(&self, width: u16, height: u16) -> Result<(), Failure> {
        match (&self.outputs[0], self.tty) {
            (Some(master), true) => {
                sys::resize_terminal(master.as_fd(), width, height).map_err(crate::root::failed("resize"))
            }
            _ => Err(Failure::new("the container has no terminal")),
        }
    }

    /// Whether memory kills were counted since the last look.
    pub fn had_memory_kill(&mut self) -> bool {
        let kills = memory_kills(&self.cgroup);
        let Some(watch) = &mut self.memory else { return false };
        // Reading resets an eventfd, and re-arms an events file.
        let mut buffer = [0; 512];
        let _ = sys::read_from_start(watch.fd.as_fd(), &mut buffer);
        let more = kills > watch.kills;
        watch.kills = watch.kills.max(kills);
        more
    }

    /// The first process ended: drains the streams, writes down how, and answers it.
    pub fn end(&mut self, exit_code: i32, buffer: &mut [u8]) -> Ended {
        if !self.own_pids {
            kill_all(&self.cgroup);
        }
        for stream in 0..2 {
            while self.read(stream, buffer) {}
        }
        let kills = memory_kills(&self.cgroup);
        self.memory = None;
        self.stdin = None;
        self.unread = Vec::new();
        self.phase = Phase::Ended;
        let failure = self.failure.take();
        let ended = Ended {
            container: self.id.clone(),
            exit_code: failure
                .as_ref()
                .map_or(exit_code, |f| if f.exit_code == 0 { 128 } else { f.exit_code }),
            out_of_memory: kills > 0,
            start_error: failure.map(|f| f.message),
            started_ns: self.started_ns,
            finished_ns: sys::now_ns(),
            runs_as: self.runs_as.clone(),
        };
        if let Ok(text) = serde_json::to_vec(&ended) {
            let (fresh, last) =
                (format!("{}/.{EXIT_FILE}", self.directory), format!("{}/{EXIT_FILE}", self.directory));
            // A full disk costs the record; the daemon, if there, still hears it.
            let _ = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &last));
        }
        ended
    }

    /// Whether nothing of it needs the shim any more.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended)
            && self.outputs.iter().all(Option::is_none)
            && self.attached.iter().all(|a| !a.waits(0) && !a.waits(1))
    }
}

fn keep_newest(kept: &mut Vec<u8>, more: &[u8]) {
    kept.extend_from_slice(more);
    let surplus = kept.len().saturating_sub(EARLY_BYTES_MAX);
    kept.drain(..surplus);
}

/// The pipes of a container without a terminal: our ends (non-blocking) and, until the fork, the program's.
pub struct Pipes {
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    /// The program's ends.
    pub theirs: [Option<OwnedFd>; 3],
}

impl Pipes {
    fn open(start: &Start) -> io::Result<Self> {
        let mut pipes = Self { stdin: None, outputs: [None, None], theirs: [None, None, None] };
        if start.process.tty {
            return Ok(pipes);
        }
        if start.stdin {
            let (theirs, ours) = sys::pipe()?;
            sys::set_nonblocking(ours.as_fd())?;
            pipes.stdin = Some(ours);
            pipes.theirs[0] = Some(theirs);
        }
        for stream in 0..2 {
            let (ours, theirs) = sys::pipe()?;
            sys::set_nonblocking(ours.as_fd())?;
            pipes.outputs[stream] = Some(ours);
            pipes.theirs[stream + 1] = Some(theirs);
        }
        Ok(pipes)
    }
}

impl MemoryWatch {
    fn new(cgroup: &Cgroup) -> io::Result<Self> {
        let events = cgroup.memory_events.as_deref().ok_or(io::ErrorKind::NotFound)?;
        let file = OwnedFd::from(std::fs::File::open(events)?);
        let Some(control) = &cgroup.event_control else {
            sys::read_from_start(file.as_fd(), &mut [0; 512])?;
            return Ok(Self { fd: file, wake: libc::POLLPRI, kills: 0 });
        };
        let fd = sys::eventfd()?;
        std::fs::write(control, format!("{} {}", fd.as_raw_fd(), file.as_raw_fd()))?;
        Ok(Self { fd, wake: libc::POLLIN, kills: 0 })
    }
}

/// How many processes of the group the kernel has killed for memory.
fn memory_kills(cgroup: &Cgroup) -> u64 {
    let Some(text) = cgroup.memory_events.as_deref().and_then(|path| std::fs::read_to_string(path).ok())
    else {
        return 0;
    };
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Kills every process of a control group.
pub fn kill_all(cgroup: &Cgroup) {
    if let Some(kill) = &cgroup.kill
        && std::fs::write(kill, "1").is_ok()
    {
        return;
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..KILL_ROUNDS_MAX {
        let Ok(text) = std::fs::read_to_string(&cgroup.procs) else { return };
        let fresh: Vec<i32> =
            text.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 0 && seen.insert(*pid)).collect();
        if fresh.is_empty() {
            return;
        }
        fresh.into_iter().for_each(sys::kill);
    }
}
