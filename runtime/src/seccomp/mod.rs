//! System call filters: the built-in profile and OCI profiles (JSON), as BPF programs for the shim to load.
//!
//! An OCI profile has one default action and rules with others. A BPF program of seccompiler's has one action for what matches and one for the
//! rest, so a profile becomes a stack of programs: the first lets everything through that any rule names and gives the default to the rest,
//! the others each let everything through but their own action's rules. The kernel takes the strictest answer.

mod default;
mod numbers;

use crate::capability;
use crate::error::{Error, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Rules per system call; an empty list matches always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// No profile is larger: those in use have some 20 KB.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

const EPERM: u32 = libc::EPERM as u32;
const ENOSYS: u32 = libc::ENOSYS as u32;

fn bad(reason: impl ToString) -> Error {
    Error::Invalid { field: "seccomp profile", reason: reason.to_string() }
}

/// The built-in profile for a program with these capabilities.
pub(crate) fn runtime_default(capabilities: u64) -> Result<Vec<u8>> {
    let has = |name: &str| capability::number(name).is_some_and(|number| capabilities & (1 << number) != 0);
    let mut allowed = Rules::new();
    let mut allow = |name: &str, rule: Option<SeccompRule>| {
        if let Some(number) = numbers::number(name) {
            allowed.entry(number).or_default().extend(rule);
        }
    };
    default::ALWAYS.iter().for_each(|name| allow(name, None));
    for (_, names) in default::WITH_CAPABILITY.iter().filter(|(capability, _)| has(capability)) {
        names.iter().for_each(|name| allow(name, None));
    }
    for personality in default::PERSONALITIES {
        allow("personality", Some(when(0, SeccompCmpOp::Eq, *personality)?));
    }
    allow("socket", Some(when(0, SeccompCmpOp::Lt, default::SOCKET_FAMILIES_BELOW)?));
    for family in default::SOCKET_FAMILIES {
        allow("socket", Some(when(0, SeccompCmpOp::Eq, *family)?));
    }
    let mut programs = Vec::new();
    if !has("SYS_ADMIN") {
        allow("clone", Some(when(0, SeccompCmpOp::MaskedEq(default::NAMESPACE_FLAGS), 0)?));
        allow("clone3", None);
        let clone3: Rules =
            numbers::number("clone3").into_iter().map(|number| (number, Vec::new())).collect();
        programs.push(compile(clone3, SeccompAction::Allow, SeccompAction::Errno(ENOSYS))?);
    }
    programs.insert(0, compile(allowed, SeccompAction::Errno(EPERM), SeccompAction::Allow)?);
    Ok(encode(&programs))
}

fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value).map_err(bad)?;
    SeccompRule::new(vec![condition]).map_err(bad)
}

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram> {
    let filter = SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64).map_err(bad)?;
    filter.try_into().map_err(bad)
}

/// As the shim reads it: a count of instructions and the instructions, for each program.
fn encode(programs: &[BpfProgram]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for program in programs {
        bytes.extend((program.len() as u32).to_le_bytes());
        for instruction in program {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_ne_bytes());
        }
    }
    bytes
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// An OCI (or Docker) profile at `path`, for a program with these capabilities.
pub(crate) fn from_file(path: &Path, capabilities: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(Error::io("reading the seccomp profile", path))?;
    file.take(PROFILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(Error::io("reading the seccomp profile", path))?;
    from_json(&text, capabilities)
}

fn from_json(text: &str, capabilities: u64) -> Result<Vec<u8>> {
    let profile: Profile = serde_json::from_str(text).map_err(bad)?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut by_action: Vec<(SeccompAction, Rules)> = Vec::new();
    let mut named = Rules::new();
    for entry in profile.syscalls.iter().filter(|entry| applies(entry, capabilities)) {
        let action = action(&entry.action, entry.errno_ret)?;
        let rules = rules(entry.args.as_deref().unwrap_or_default())?;
        // A system call that this machine does not have cannot be made either.
        for number in entry.names.iter().filter_map(|name| numbers::number(name)) {
            add(&mut named, number, &rules);
            if action == SeccompAction::Allow {
                continue;
            }
            let at = by_action.iter().position(|(other, _)| *other == action).unwrap_or_else(|| {
                by_action.push((action.clone(), Rules::new()));
                by_action.len() - 1
            });
            add(&mut by_action[at].1, number, &rules);
        }
    }
    let mut programs = Vec::new();
    // Nothing to decide needs no program, and seccompiler refuses one.
    if default != SeccompAction::Allow {
        programs.push(compile(named, default, SeccompAction::Allow)?);
    }
    for (action, rules) in by_action {
        programs.push(compile(rules, SeccompAction::Allow, action)?);
    }
    Ok(encode(&programs))
}

/// Adds rules for a system call. One without conditions (an empty list) stays: it matches always.
fn add(all: &mut Rules, number: i64, rules: &[SeccompRule]) {
    match all.get_mut(&number) {
        Some(there) if there.is_empty() => {}
        Some(there) if rules.is_empty() => there.clear(),
        Some(there) => there.extend_from_slice(rules),
        None => drop(all.insert(number, rules.to_vec())),
    }
}

fn applies(entry: &Entry, capabilities: u64) -> bool {
    let has =
        |name: &String| capability::number(name).is_some_and(|number| capabilities & (1 << number) != 0);
    let here = |arch: &String| matches!(arch.as_str(), "amd64" | "x86_64");
    let included = entry.includes.as_ref().is_none_or(|when| {
        when.caps.iter().all(has) && (when.arches.is_empty() || when.arches.iter().any(here))
    });
    let excluded =
        entry.excludes.as_ref().is_some_and(|when| when.caps.iter().any(has) || when.arches.iter().any(here));
    included && !excluded
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno.unwrap_or(EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(errno.unwrap_or(EPERM)),
        other => return Err(bad(format_args!("unknown action {other:?}"))),
    })
}

/// Conditions on different arguments all must hold; several on one argument are alternatives, as libseccomp's users expect.
fn rules(arguments: &[Argument]) -> Result<Vec<SeccompRule>> {
    let conditions: Vec<SeccompCondition> = arguments.iter().map(condition).collect::<Result<_>>()?;
    let repeated =
        arguments.iter().enumerate().any(|(at, a)| arguments[..at].iter().any(|b| b.index == a.index));
    match (conditions.is_empty(), repeated) {
        (true, _) => Ok(Vec::new()),
        (false, false) => Ok(vec![SeccompRule::new(conditions).map_err(bad)?]),
        (false, true) => conditions.into_iter().map(|c| SeccompRule::new(vec![c]).map_err(bad)).collect(),
    }
}

fn condition(argument: &Argument) -> Result<SeccompCondition> {
    let (operator, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, argument.value),
        "SCMP_CMP_NE" => (SeccompCmpOp::Ne, argument.value),
        "SCMP_CMP_LT" => (SeccompCmpOp::Lt, argument.value),
        "SCMP_CMP_LE" => (SeccompCmpOp::Le, argument.value),
        "SCMP_CMP_GT" => (SeccompCmpOp::Gt, argument.value),
        "SCMP_CMP_GE" => (SeccompCmpOp::Ge, argument.value),
        "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(argument.value), argument.value_two),
        other => return Err(bad(format_args!("unknown comparison {other:?}"))),
    };
    SeccompCondition::new(argument.index, SeccompCmpArgLen::Qword, operator, value).map_err(bad)
}

#[cfg(test)]
mod tests;
