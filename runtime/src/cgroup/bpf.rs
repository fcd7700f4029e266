//! Device rules on v2: there is no file for them, a small program answers instead.

use super::DeviceRule;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// An instruction: code, destination and source register, jump offset, constant.
type Instruction = (u8, u8, u8, i16, i32);

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb4; // 32 bits, constant
const MOVE_REGISTER: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_UNLESS_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// The program: allows what a rule allows, and nothing else.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    // r2 = kind, r3 = access, r4 = major, r5 = minor, from `struct bpf_cgroup_dev_ctx` at r1.
    let mut all = vec![
        (LOAD_WORD, 2, 1, 0, 0),
        (AND, 2, 0, 0, 0xffff),
        (LOAD_WORD, 3, 1, 0, 0),
        (SHIFT_RIGHT, 3, 0, 0, 16),
        (LOAD_WORD, 4, 1, 4, 0),
        (LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let bits = [('m', 1), ('r', 2), ('w', 4)];
        let access: i32 =
            bits.iter().filter(|(letter, _)| rule.access.contains(*letter)).map(|(_, bit)| bit).sum();
        let mut block: Vec<Instruction> =
            vec![(JUMP_UNLESS_EQUAL, 2, 0, 0, if rule.kind == 'b' { 1 } else { 2 })];
        if access != 7 {
            block.push((MOVE_REGISTER, 1, 3, 0, 0));
            block.push((AND, 1, 0, 0, access));
            block.push((JUMP_UNLESS_EQUAL_REGISTER, 1, 3, 0, 0));
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                block.push((JUMP_UNLESS_EQUAL, register, 0, 0, number as i32));
            }
        }
        block.push((MOVE, 0, 0, 0, 1));
        block.push((EXIT, 0, 0, 0, 0));
        let length = block.len();
        for (index, instruction) in block.iter_mut().enumerate() {
            if matches!(instruction.0, JUMP_UNLESS_EQUAL | JUMP_UNLESS_EQUAL_REGISTER) {
                instruction.3 = (length - index - 1) as i16;
            }
        }
        all.extend(block);
    }
    all.extend([(MOVE, 0, 0, 0, 0), (EXIT, 0, 0, 0, 0)]);
    all
}

fn encode(program: &[Instruction]) -> Vec<u8> {
    let encode = |(code, destination, source, offset, constant): &Instruction| {
        let mut bytes = [*code, destination | source << 4, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&constant.to_ne_bytes());
        bytes
    };
    program.iter().flat_map(encode).collect()
}

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

#[allow(unsafe_code)]
fn bpf(command: i32, attributes: &[u8]) -> Result<i32> {
    // SAFETY: the attributes are as long as told; the memory they point to is kept by the callers through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result as i32) }
}

#[allow(unsafe_code)]
fn load(rules: &[DeviceRule]) -> Result<OwnedFd> {
    let instructions = encode(&program(rules));
    let license = c"Apache-2.0";
    let mut attributes = Vec::new();
    attributes.extend(TYPE_CGROUP_DEVICE.to_ne_bytes());
    attributes.extend((instructions.len() as u32 / 8).to_ne_bytes());
    attributes.extend((instructions.as_ptr() as u64).to_ne_bytes());
    attributes.extend((license.as_ptr() as u64).to_ne_bytes());
    let fd = bpf(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allows exactly `rules` to the processes of the group.
pub(super) fn attach_device_filter(group: &Path, rules: &[DeviceRule]) -> Result<()> {
    let program = load(rules)?;
    let group = std::fs::File::open(group)?;
    let mut attributes = Vec::new();
    for word in [group.as_raw_fd() as u32, program.as_raw_fd() as u32, ATTACH_CGROUP_DEVICE, ALLOW_MULTI] {
        attributes.extend(word.to_ne_bytes());
    }
    bpf(PROG_ATTACH, &attributes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: char, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
        DeviceRule { kind, major, minor, access: access.to_owned() }
    }

    /// Runs the program as the kernel would.
    fn run(rules: &[DeviceRule], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let program = program(rules);
        let context = [kind | access << 16, major, minor];
        let mut registers = [0i32; 6];
        let mut at = 0usize;
        loop {
            let (code, to, from, offset, constant) = program[at];
            let (to, from) = (usize::from(to), usize::from(from));
            at += 1;
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                MOVE => registers[to] = constant,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= constant,
                SHIFT_RIGHT => registers[to] = ((registers[to] as u32) >> constant) as i32,
                JUMP_UNLESS_EQUAL if registers[to] != constant => at += offset as usize,
                JUMP_UNLESS_EQUAL_REGISTER if registers[to] != registers[from] => at += offset as usize,
                JUMP_UNLESS_EQUAL | JUMP_UNLESS_EQUAL_REGISTER => {}
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn rules_decide() {
        const CHAR: i32 = 2;
        const BLOCK: i32 = 1;
        let rules = [
            rule('c', None, None, "m"),
            rule('c', Some(1), Some(3), "rwm"),
            rule('c', Some(136), None, "rw"),
        ];
        let check = |kind, access, major, minor, allowed| {
            assert_eq!(run(&rules, kind, access, major, minor), allowed)
        };
        check(CHAR, 1, 9, 9, true);
        check(CHAR, 2, 9, 9, false);
        check(CHAR, 6, 1, 3, true);
        check(CHAR, 6, 1, 4, false);
        check(CHAR, 6, 136, 7, true);
        check(CHAR, 7, 136, 7, false);
        check(BLOCK, 1, 8, 0, false);
    }
}
