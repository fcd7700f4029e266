//! System calls. All of the shim's `unsafe` that is not about ending a process is here.

#![allow(unsafe_code)] // every function below wraps one system call; see each

use std::ffi::{CStr, CString};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Turns -1 into the error number.
fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// A path or text for the kernel.
pub fn c(text: impl AsRef<Path>) -> Result<CString> {
    CString::new(text.as_ref().as_os_str().as_bytes()).map_err(|_| Error::from_raw_os_error(libc::EINVAL))
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel just gave us this descriptor; nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// The current directory, for the `*at` calls.
pub fn cwd() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is always valid and never closed.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// `fork` with a choice of namespaces and of a v2 control group to be born in, and a descriptor of the child in the parent. `None` in the child.
///
/// The shim has one thread, so the child may run ordinary code.
pub fn clone(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Option<(i32, OwnedFd)>> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    let mut arguments = [0u64; 11];
    arguments[0] = namespaces | libc::CLONE_PIDFD as u64;
    arguments[1] = &raw mut pidfd as u64;
    arguments[4] = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments[0] |= CLONE_INTO_CGROUP;
        arguments[10] = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no stack and no shared memory are asked for, so this is fork; the kernel writes `pidfd` before it returns.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) })?;
    Ok((pid != 0).then(|| (pid as i32, owned(pidfd.into()))))
}

/// Leaves namespaces for new ones.
pub fn unshare(namespaces: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(namespaces) }.into()).map(drop)
}

/// Joins the namespace (or some of those of the process) behind `fd`.
pub fn setns(fd: BorrowedFd<'_>, namespaces: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(fd.as_raw_fd(), namespaces) }.into()).map(drop)
}

/// Two ends of a local socket; `SOCK_STREAM` or `SOCK_SEQPACKET`.
pub fn socketpair(kind: i32) -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: two descriptors are written to an array of two.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) }.into())?;
    Ok((owned(fds[0].into()), owned(fds[1].into())))
}

/// A pipe: where to read, where to write.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: two descriptors are written to an array of two.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    Ok((owned(fds[0].into()), owned(fds[1].into())))
}

/// Makes reads and writes return at once.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: flags only.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into())? as i32;
    // SAFETY: flags only.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }.into()).map(drop)
}

/// Another descriptor of the same open file.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) }.into()).map(owned)
}

/// Makes `target` (0, 1 or 2) be `fd`.
pub fn duplicate_to(fd: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    // SAFETY: only called in a child that is about to exec, for its standard streams.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into()).map(drop)
}

/// Reads what is there; 0 is the end.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the length is the buffer's.
    check(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } as libc::c_long)
        .map(|n| n as usize)
}

/// Reads from the beginning of a file.
pub fn read_from_start(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: no memory is passed. What cannot be sought (an eventfd) has only a beginning.
    unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_SET) };
    read(fd, buffer)
}

/// Writes what fits.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the length is the buffer's.
    check(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } as libc::c_long)
        .map(|n| n as usize)
}

/// Waits until one of `fds` is ready.
pub fn poll(fds: &mut [libc::pollfd]) -> Result<()> {
    // SAFETY: the length is the slice's.
    check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) }.into()).map(drop)
}

/// Blocks SIGCHLD and gives a descriptor that tells of it. Other signals that could end the shim are ignored.
pub fn signals() -> Result<OwnedFd> {
    // SAFETY: a zeroed signal set is valid, and the calls write only to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        for signal in [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGPIPE,
            libc::SIGUSR1,
            libc::SIGUSR2,
        ] {
            libc::signal(signal, libc::SIG_IGN);
        }
        check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into()).map(owned)
    }
}

/// Undoes [`signals`] and whatever was inherited.
pub fn reset_signals() {
    // SAFETY: a zeroed signal set is valid; default dispositions run no code of ours.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// The next child that ended: pid and exit code (128 + n for signal n).
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: one integer is written.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    Some((pid, code))
}

/// Sends a signal through a process descriptor: never to another process that got the same number.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) }).map(drop)
}

/// Kills a process by number; only for numbers just read from a control group of ours.
pub fn kill(pid: i32) {
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Opens a path below `root` as if `root` were `/`, with `RESOLVE_*` rules.
pub fn open_in(root: BorrowedFd<'_>, path: &Path, flags: i32, resolve: u64) -> Result<OwnedFd> {
    let path = c(path)?;
    let how = [(flags | libc::O_CLOEXEC) as u64, 0, resolve]; // struct open_how
    // SAFETY: `how` has the size that is told, `path` ends in 0.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), how.as_ptr(), size_of_val(&how))
    })?;
    Ok(owned(fd))
}

/// `mkdirat`.
pub fn make_directory(parent: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `name` ends in 0.
    check(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), mode) }.into()).map(drop)
}

/// An empty file that did not exist.
pub fn make_file(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_WRONLY;
    // SAFETY: `name` ends in 0.
    check(unsafe { libc::openat(parent.as_raw_fd(), name.as_ptr(), flags, 0o644) }.into()).map(owned)
}

/// A device file, exactly with `mode` and owner.
pub fn make_device(parent: BorrowedFd<'_>, name: &CStr, device: &shim::DeviceFile) -> Result<()> {
    let number = libc::makedev(device.major, device.minor);
    // SAFETY: `name` ends in 0.
    unsafe {
        check(libc::mknodat(parent.as_raw_fd(), name.as_ptr(), device.mode, number).into())?;
        check(libc::fchmodat(parent.as_raw_fd(), name.as_ptr(), device.mode & 0o7777, 0).into())?;
        check(
            libc::fchownat(
                parent.as_raw_fd(),
                name.as_ptr(),
                device.uid,
                device.gid,
                libc::AT_SYMLINK_NOFOLLOW,
            )
            .into(),
        )
        .map(drop)
    }
}

/// A symbolic link.
pub fn make_link(parent: BorrowedFd<'_>, name: &CStr, target: &CStr) -> Result<()> {
    // SAFETY: both end in 0.
    check(unsafe { libc::symlinkat(target.as_ptr(), parent.as_raw_fd(), name.as_ptr()) }.into()).map(drop)
}

/// Whether a directory is behind `fd`.
pub fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: a zeroed stat is valid and written as a whole.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd.as_raw_fd(), &raw mut stat).into())?;
        Ok(stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
    }
}

/// Gives an open file to a user.
pub fn change_owner(fd: BorrowedFd<'_>, uid: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchown(fd.as_raw_fd(), uid, u32::MAX) }.into()).map(drop)
}

/// Makes `fd` the working directory.
pub fn change_directory(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchdir(fd.as_raw_fd()) }.into()).map(drop)
}

/// The old `mount`, for what the new calls cannot express on older kernels.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong, data: &CStr) -> Result<()> {
    // SAFETY: all end in 0.
    check(
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) }
            .into(),
    )
    .map(drop)
}

/// Makes the working directory the root and detaches the old one.
pub fn pivot_root_here() -> Result<()> {
    // SAFETY: constant texts; the old root is stacked on the new one and taken away at once.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
        check(libc::chdir(c"/".as_ptr()).into()).map(drop)
    }
}

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;

/// Makes nothing below writable.
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;

/// A new, unattached mount of a kernel file system.
pub fn new_filesystem(kind: &str, options: &[(String, String)], attributes: u64) -> Result<OwnedFd> {
    let kind = c(kind)?;
    // SAFETY: all texts end in 0 and live through their call.
    unsafe {
        let context = owned(check(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1))?);
        for (key, value) in options {
            let (key, value) = (c(key)?, c(value)?);
            let (command, value) = match value.is_empty() {
                true => (FSCONFIG_SET_FLAG, std::ptr::null()),
                false => (FSCONFIG_SET_STRING, value.as_ptr()),
            };
            check(libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key.as_ptr(), value, 0))?;
        }
        check(libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, 0, 0, 0))?;
        check(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attributes)).map(owned)
    }
}

/// An unattached copy of what is mounted at (and, with `recursive`, below) `path`.
pub fn clone_tree(at: BorrowedFd<'_>, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let path = c(path)?;
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC as u32
        | libc::AT_EMPTY_PATH as u32
        | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `path` ends in 0.
    check(unsafe { libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), path.as_ptr(), flags) }).map(owned)
}

/// Attaches a mount on what `target` is open at.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let empty = c"".as_ptr();
    // SAFETY: constant texts.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), empty, target.as_raw_fd(), empty, flags)
    })
    .map(drop)
}

/// Sets `MOUNT_ATTR_*` bits and propagation (`MS_*`, 0 leaves it) of a mount, and with `recursive` of those below.
pub fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    propagation: u64,
    recursive: bool,
) -> Result<()> {
    let arguments = [attributes, 0, propagation, 0]; // struct mount_attr: set, clear, propagation, userns_fd
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the struct has the size that is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    };
    check(result).map(drop)
}

/// `prctl` with plain numbers.
pub fn prctl(option: i32, argument: u64) -> Result<()> {
    // SAFETY: only options that take numbers are used.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) }.into()).map(drop)
}

/// The name that `ps` shows.
pub fn set_name(name: &CStr) {
    // SAFETY: `name` ends in 0.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// A session of its own, without a terminal.
pub fn new_session() {
    // SAFETY: no memory is passed. It fails only for a process group's leader, which then stays what it is.
    unsafe { libc::setsid() };
}

/// Sets who the process is: groups, group, user. Capabilities are kept for [`set_capabilities`].
pub fn set_user(user: &shim::RunsAs) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1)?;
    // SAFETY: the length is the vector's. One thread: the raw calls do what glibc's would.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid))?;
        check(libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid))?;
    }
    prctl(libc::PR_SET_KEEPCAPS, 0)
}

/// Takes every capability but `keep` out of the bounding set.
pub fn bound_capabilities(keep: u64) -> Result<()> {
    for capability in 0..63u64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(()), // beyond the kernel's last
            other => other?,
        }
    }
    Ok(())
}

/// Makes `keep` (as far as we have it) the permitted and effective set, and nothing inheritable or ambient.
pub fn set_capabilities(keep: u64) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut data = [0u32; 6]; // two times: effective, permitted, inheritable
    // SAFETY: two structures of three words are written.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) })?;
    let keep = keep & (u64::from(data[1]) | u64::from(data[4]) << 32);
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    let data = [low, low, 0, high, high, 0];
    // SAFETY: two structures of three words are read.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    // SAFETY: numbers only. Older kernels without ambient sets have nothing to clear.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    Ok(())
}

/// Loads a BPF program as a system call filter.
pub fn load_filter(instructions: &[u8]) -> Result<()> {
    let program = libc::sock_fprog {
        len: (instructions.len() / 8) as u16,
        filter: instructions.as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: the kernel copies `len` instructions of 8 bytes, unaligned if need be, and checks them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
        .map(drop)
}

/// Sets a bound of this process; what we may not raise is lowered to what we may have.
pub fn set_rlimit(kind: i32, soft: u64, hard: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: one structure is read or written.
    unsafe {
        if libc::setrlimit(kind as _, &raw const limit) == 0 {
            return Ok(());
        }
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        check(libc::getrlimit(kind as _, &raw mut now).into())?;
        limit.rlim_max = hard.min(now.rlim_max);
        limit.rlim_cur = soft.min(limit.rlim_max);
        check(libc::setrlimit(kind as _, &raw const limit).into()).map(drop)
    }
}

/// Sets the mask for new files.
pub fn set_umask(mask: u32) {
    // SAFETY: no memory is passed.
    unsafe { libc::umask(mask) };
}

/// Everything but the standard streams closes at exec.
pub fn close_rest_at_exec() -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: flags only; nothing is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes every descriptor, now. Only for a child that uses none from then on and never drops an owner of one.
pub fn close_all() {
    // SAFETY: the caller runs no code that owns a descriptor any more.
    unsafe { libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0) };
}

/// Waits until a child changes. SIGCHLD must be blocked, so that one that came before is not missed.
pub fn wait_for_child() {
    // SAFETY: a zeroed signal set is valid.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let mut signal = 0;
        libc::sigwait(&raw const set, &raw mut signal);
    }
}

/// Becomes another program. Returns only on error.
pub fn exec(path: &CStr, argv: &[CString], env: &[CString]) -> Error {
    let pointers =
        |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both lists end in null, all texts in 0.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Error::last_os_error()
}

/// Ends the process at once.
pub fn exit(code: i32) -> ! {
    // SAFETY: runs no handlers; that is the point in a forked child.
    unsafe { libc::_exit(code) }
}

/// Makes the terminal `slave` the process's own.
pub fn control_terminal(slave: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the request takes a number.
    check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Unlocks a new terminal and tells its number.
pub fn terminal_number(master: BorrowedFd<'_>) -> Result<u32> {
    let (unlock, mut number) = (0i32, 0u32);
    // SAFETY: each request reads or writes one integer.
    unsafe {
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock).into())?;
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number).into())?;
    }
    Ok(number)
}

/// Tells a terminal its size.
pub fn resize_terminal(master: BorrowedFd<'_>, width: u16, height: u16) -> Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: one structure is read.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}

/// A counter that the kernel can add to.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }.into()).map(owned)
}

/// Takes the next connection.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let null = std::ptr::null_mut();
    // SAFETY: no address is asked for.
    let fd = unsafe {
        libc::accept4(listener.as_raw_fd(), null, null.cast(), libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
    };
    check(fd.into()).map(owned)
}

const CONTROL_BYTES: usize = 64; // room for FRAME_FDS_MAX descriptors and the header

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Sends bytes, and descriptors with the first of them.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    assert!(fds.len() <= shim::FRAME_FDS_MAX, "no message carries so many");
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    // SAFETY: `control` is aligned and has room for FRAME_FDS_MAX descriptors; all pointers live through the call.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            let length = size_of_val(fds) as u32;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(length) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(length) as usize;
            for (index, fd) in fds.iter().enumerate() {
                libc::CMSG_DATA(header).cast::<RawFd>().add(index).write_unaligned(fd.as_raw_fd());
            }
        }
        check(libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) as libc::c_long)
            .map(|n| n as usize)
    }
}

/// Receives bytes and the descriptors that came with them; 0 is the end.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut fds = Vec::new();
    // SAFETY: as in `send`; descriptors in SCM_RIGHTS messages are new and ours.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES;
        let length = check(
            libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) as libc::c_long
        )?;
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*header).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                for index in 0..count {
                    fds.push(owned(
                        libc::CMSG_DATA(header).cast::<RawFd>().add(index).read_unaligned().into(),
                    ));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        Ok((length as usize, fds))
    }
}

/// Now, in ns since 1970. The shim's only clock: it stamps log lines and exits, and decides nothing by it.
#[allow(clippy::disallowed_methods)]
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as i64
}
