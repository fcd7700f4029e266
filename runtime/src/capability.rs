//! Capabilities by name.

use crate::error::{Error, Result};
use crate::spec::Capabilities;

/// In the kernel's order: the position is the number.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
    "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
    "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
    "PERFMON", "BPF", "CHECKPOINT_RESTORE",
];

/// What a container has unless told otherwise. Upstream: containerd's `defaultUnixCaps`.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All that exist.
pub(crate) const ALL: u64 = (1 << NAMES.len()) - 1;

/// The number of a capability, named with or without `CAP_`.
pub(crate) fn number(name: &str) -> Option<u32> {
    let upper = name.to_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == short).map(|at| at as u32)
}

/// The set that `changes` to the default make. As upstream's: `ALL` first, then single names, dropping last.
pub(crate) fn set(changes: &Capabilities) -> Result<u64> {
    let bit = |name: &String| match number(name) {
        Some(number) => Ok(1 << number),
        None => Err(Error::Invalid { field: "capabilities", reason: format!("unknown capability {name:?}") }),
    };
    let is_all = |name: &&String| name.trim_start_matches("CAP_").eq_ignore_ascii_case("ALL");
    let mut set: u64 = DEFAULT.iter().filter_map(|name| number(name)).map(|number| 1 << number).sum();
    if changes.add.iter().any(|name| is_all(&name)) {
        set = ALL;
    }
    if changes.drop.iter().any(|name| is_all(&name)) {
        set = 0;
    }
    for name in changes.add.iter().filter(|name| !is_all(name)) {
        set |= bit(name)?;
    }
    for name in changes.drop.iter().filter(|name| !is_all(name)) {
        set &= !bit(name)?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        fn check(add: &[&str], drop: &[&str], expect: u64) {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(
                set(&Capabilities { add: owned(add), drop: owned(drop) }).unwrap(),
                expect,
                "{add:?} {drop:?}"
            );
        }
        let default = 0xa80425fb; // what a container's /proc/self/status shows everywhere
        check(&[], &[], default);
        check(&["NET_ADMIN"], &[], default | 1 << 12);
        check(&["CAP_SYS_TIME"], &["ALL"], 1 << 25);
        check(&["ALL"], &[], ALL);
        check(&["ALL"], &["kill"], ALL & !(1 << 5));
        check(&[], &["CHOWN"], default & !1);
        let unknown = Capabilities { add: vec!["FLY".to_owned()], drop: vec![] };
        assert!(set(&unknown).is_err());
    }
}
