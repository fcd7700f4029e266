//! From a forked child to the container's program: who it is, what it may do, and exec.

use crate::root::{failed, words};
use crate::sys;
use shim::{Failure, Process, RunsAs, User};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where programs are looked for when the environment does not say.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// No `/etc/passwd` or `/etc/group` is read beyond this: they are the image's, so anything may be in them.
const ACCOUNTS_BYTES_MAX: u64 = 16 << 20;

/// Exit code of a container whose program could not be started, as upstream shows it.
const START_FAILED: i32 = 128;

fn not_run(message: String) -> Failure {
    Failure::program(START_FAILED, message)
}

/// Reads an account file of the image we are in; nothing where it is missing or not a file.
fn accounts(path: &str) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    if std::fs::metadata(path).is_ok_and(|found| found.is_file())
        && let Ok(file) = std::fs::File::open(path)
    {
        // A read error half way leaves what was read: the same as a short file.
        let _ = file.take(ACCOUNTS_BYTES_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Looks the user's names up in the image.
pub fn look_up(user: &User) -> Result<RunsAs, Failure> {
    resolve(user, &accounts("/etc/passwd"), &accounts("/etc/group"))
}

/// Who `user` is by these account files. Upstream: moby/sys user, `GetExecUser`.
fn resolve(user: &User, passwd: &str, group: &str) -> Result<RunsAs, Failure> {
    let (name, group_name) = match user.name.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
        None => (user.name.as_str(), None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let (login, uid) = (*fields.first()?, fields.get(2)?.parse::<u32>().ok()?);
        let gid = fields.get(3)?.parse::<u32>().ok()?;
        let home = fields.get(5).copied().unwrap_or("/");
        (login == name || name.parse() == Ok(uid)).then(|| (login.to_owned(), uid, gid, home.to_owned()))
    });
    let (login, uid, mut gid, home) = match (entry, name.parse::<u32>()) {
        (Some(entry), _) => entry,
        (None, Ok(uid)) => (String::new(), uid, 0, "/".to_owned()),
        (None, Err(_)) => {
            return Err(not_run(format!("unable to find user {name}: no matching entries in passwd file")));
        }
    };
    let groups = || {
        group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.trim().split(':').collect();
            Some((
                *fields.first()?,
                fields.get(2)?.parse::<u32>().ok()?,
                fields.get(3).copied().unwrap_or(""),
            ))
        })
    };
    if let Some(wanted) = group_name {
        gid = match (groups().find(|(name, ..)| *name == wanted), wanted.parse()) {
            (Some((_, gid, _)), _) => gid,
            (None, Ok(gid)) => gid,
            (None, Err(_)) => {
                return Err(not_run(format!(
                    "unable to find group {wanted}: no matching entries in group file"
                )));
            }
        };
    }
    let mut all = vec![gid];
    all.extend(&user.groups);
    if user.groups_of_image && !login.is_empty() {
        all.extend(
            groups().filter(|(.., members)| members.split(',').any(|m| m == login)).map(|(_, gid, _)| gid),
        );
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|gid| seen.insert(*gid));
    Ok(RunsAs { uid, gid, groups: all, home: if home.is_empty() { "/".to_owned() } else { home } })
}

/// What must be read before the machine's files are out of sight.
pub struct Confinement {
    filters: Vec<Vec<u8>>,
}

/// Prepares a forked child: signals, session, control groups, memory killing; reads the filters.
pub fn prepare(process: &Process, cgroup: &shim::Cgroup) -> Result<Confinement, Failure> {
    sys::reset_signals();
    sys::new_session();
    for path in &cgroup.tasks {
        std::fs::write(path, "0").map_err(failed(format_args!("entering the control group {path}")))?;
    }
    if let Some(score) = process.oom_score_adj {
        set_oom_score(score);
    }
    let filters = match &process.seccomp {
        Some(path) => {
            filters(&std::fs::read(path).map_err(failed(format_args!("reading the seccomp filter {path}")))?)
        }
        None => Some(Vec::new()),
    };
    Ok(Confinement { filters: filters.ok_or_else(|| Failure::new("the seccomp filter is damaged"))? })
}

/// As near to `score` as we may: lowering it below our own needs a capability that not every machine gives.
fn set_oom_score(score: i32) {
    const FILE: &str = "/proc/self/oom_score_adj";
    if std::fs::write(FILE, score.to_string()).is_err() {
        let own = std::fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse::<i32>().ok());
        // If even our own value is refused, it stays what it is: that value.
        let _ = std::fs::write(FILE, own.unwrap_or(0).max(score).to_string());
    }
}

/// Takes a file of filters apart: each a count of instructions and the instructions.
fn filters(mut file: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    while !file.is_empty() {
        let (count, rest) = file.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*count) as usize * 8;
        all.push(rest.get(..length)?.to_vec());
        file = &rest[length..];
    }
    Some(all)
}

/// Makes the standard streams; missing ones lead nowhere. `null` was opened before the machine's files were out of sight.
pub fn set_streams(streams: [Option<OwnedFd>; 3], null: &OwnedFd, uid: u32) -> Result<(), Failure> {
    for (number, stream) in streams.iter().enumerate() {
        if let Some(stream) = stream {
            // So that the program may open /dev/stdout again. Not all kinds of files have an owner.
            let _ = sys::change_owner(stream.as_fd(), uid);
        }
        let fd = stream.as_ref().unwrap_or(null);
        sys::duplicate_to(fd.as_fd(), number as i32).map_err(failed("setting up the standard streams"))?;
    }
    Ok(())
}

/// Opens a new terminal of the container: the controlling side, and the other as the standard streams.
pub fn open_terminal(uid: u32) -> Result<(OwnedFd, OwnedFd), Failure> {
    let open = || {
        let flags = libc::O_RDWR | libc::O_NOCTTY;
        let master = sys::open_in(sys::cwd(), Path::new("/dev/pts/ptmx"), flags, 0)?;
        let number = sys::terminal_number(master.as_fd())?;
        let slave = sys::open_in(sys::cwd(), Path::new(&format!("/dev/pts/{number}")), flags, 0)?;
        sys::control_terminal(slave.as_fd())?;
        let _ = sys::change_owner(slave.as_fd(), uid);
        for stream in 0..3 {
            sys::duplicate_to(slave.as_fd(), stream)?;
        }
        Ok((master, slave))
    };
    open().map_err(failed("opening a terminal"))
}

/// Confines this process and runs the program. Returns only what went wrong.
pub fn become_program(process: &Process, confinement: &Confinement, user: &RunsAs) -> Failure {
    match confine(process, confinement, user) {
        Ok(()) => run(process, user),
        Err(failure) => failure,
    }
}

fn confine(process: &Process, confinement: &Confinement, user: &RunsAs) -> Result<(), Failure> {
    sys::close_rest_at_exec().map_err(failed("close_range"))?;
    sys::set_umask(0o022);
    for (kind, soft, hard) in &process.rlimits {
        sys::set_rlimit(*kind, *soft, *hard).map_err(failed("setting rlimits"))?;
    }
    let entered = std::env::set_current_dir(&process.cwd);
    let load = || {
        confinement
            .filters
            .iter()
            .try_for_each(|filter| sys::load_filter(filter))
            .map_err(failed("error loading seccomp filter"))
    };
    // Without no_new_privs only an administrator may load filters, so before capabilities are given up.
    if process.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(failed("setting no_new_privs"))?;
    } else {
        load()?;
    }
    sys::bound_capabilities(process.capabilities).map_err(failed("dropping capabilities"))?;
    sys::set_user(user).map_err(failed("setting the user"))?;
    // Some directories only their owner may enter.
    if entered.is_err() {
        std::env::set_current_dir(&process.cwd).map_err(|e| {
            not_run(format!("chdir to cwd ({:?}) set in config.json failed: {}", process.cwd, words(&e)))
        })?;
    }
    sys::set_capabilities(process.capabilities).map_err(failed("setting capabilities"))?;
    if process.no_new_privileges { load() } else { Ok(()) }
}

fn run(process: &Process, user: &RunsAs) -> Failure {
    let mut env = process.env.clone();
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let Some(name) = process.argv.first() else { return not_run("no command specified".to_owned()) };
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(PATH_DEFAULT);
    let program = match find_program(name, path) {
        Ok(program) => program,
        Err(reason) => return not_run(format!("exec: {name:?}: {reason}")),
    };
    let texts = |all: &[String]| all.iter().map(sys::c).collect::<std::io::Result<Vec<CString>>>();
    match (sys::c(&program), texts(&process.argv), texts(&env)) {
        (Ok(path), Ok(argv), Ok(env)) => {
            let error = sys::exec(&path, &argv, &env);
            not_run(format!("exec {}: {}", program.display(), words(&error)))
        }
        _ => not_run(format!("exec: {name:?}: invalid argument")),
    }
}

/// The file that `name` means. Upstream: Go's os/exec `LookPath`.
fn find_program(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return executable(Path::new(name)).map(|()| name.into()).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => format!("stat {name}: {}", words(&e)),
            _ => words(&e),
        });
    }
    let mut refused = None;
    for directory in path.split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => refused = Some(words(&e)),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| "executable file not found in $PATH".to_owned()))
}

fn executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let found = std::fs::metadata(path)?;
    if found.is_dir() {
        return Err(std::io::Error::from_raw_os_error(libc::EISDIR));
    }
    match found.permissions().mode() & 0o111 {
        0 => Err(std::io::Error::from_raw_os_error(libc::EACCES)),
        _ => Ok(()),
    }
}

/// Joins a running container's mount and control group namespaces.
pub fn join(container: BorrowedFd<'_>) -> Result<(), Failure> {
    sys::setns(container, libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP).map_err(failed("joining the container"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:w:/srv:/bin/sh\nodd\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,web\nstaff:x:50:web\n";

    fn user(name: &str) -> User {
        User { name: name.to_owned(), groups: vec![7, 44], groups_of_image: true }
    }

    #[test]
    fn users_are_looked_up_in_the_image() {
        fn check(name: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
            let expect = RunsAs { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
            assert_eq!(resolve(&user(name), PASSWD, GROUP), Ok(expect), "{name}");
        }
        check("", 0, 0, &[0, 7, 44, 10], "/root");
        check("web", 33, 44, &[44, 7, 10, 50], "/srv");
        check("33", 33, 44, &[44, 7, 10, 50], "/srv");
        check("web:staff", 33, 50, &[50, 7, 44, 10], "/srv");
        check("1000", 1000, 0, &[0, 7, 44], "/");
        check("1000:2000", 1000, 2000, &[2000, 7, 44], "/");
    }

    #[test]
    fn unknown_names_are_told() {
        fn check(name: &str, message: &str) {
            assert_eq!(resolve(&user(name), PASSWD, GROUP).unwrap_err().message, message);
        }
        check("nobody", "unable to find user nobody: no matching entries in passwd file");
        check("web:nogroup", "unable to find group nogroup: no matching entries in group file");
    }

    #[test]
    fn missing_programs_are_told() {
        fn check(name: &str, message: &str) {
            assert_eq!(find_program(name, "/nosuchdirectory:/usr/bin").unwrap_err(), message);
        }
        check("nosuch", "executable file not found in $PATH");
        check("/nosuch", "stat /nosuch: no such file or directory");
        check("/etc/passwd", "permission denied");
        check("/etc", "is a directory");
    }

    #[test]
    fn damaged_filters_are_refused() {
        assert_eq!(filters(&[]), Some(vec![]));
        assert_eq!(filters(&[1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), Some(vec![vec![1, 2, 3, 4, 5, 6, 7, 8]]));
        assert_eq!(filters(&[2, 0, 0, 0, 1]), None);
        assert_eq!(filters(&[2, 0]), None);
    }
}
