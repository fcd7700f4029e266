use super::*;

const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// Runs the programs as the kernel would: the strictest answer counts, the last of equals.
fn answer(programs: &[u8], name: &str, arguments: [u64; 6]) -> u32 {
    let mut data = vec![0u8; 64];
    data[..4].copy_from_slice(&(numbers::number(name).unwrap() as u32).to_ne_bytes());
    data[4..8].copy_from_slice(&0xc000_003e_u32.to_ne_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        data[16 + index * 8..24 + index * 8].copy_from_slice(&argument.to_ne_bytes());
    }
    let mut rest = programs;
    let mut strictest = ALLOW;
    while !rest.is_empty() {
        let (count, after) = rest.split_first_chunk::<4>().unwrap();
        let length = u32::from_le_bytes(*count) as usize * 8;
        let said = run(&after[..length], &data);
        if (said as i32) < strictest as i32 || said & 0xffff_0000 == strictest & 0xffff_0000 {
            strictest = said;
        }
        rest = &after[length..];
    }
    strictest
}

fn run(program: &[u8], data: &[u8]) -> u32 {
    let (mut at, mut register) = (0usize, 0u32);
    loop {
        let i = &program[at * 8..at * 8 + 8];
        let code = u16::from_ne_bytes([i[0], i[1]]);
        let k = u32::from_ne_bytes([i[4], i[5], i[6], i[7]]);
        at += 1;
        let mut jump = |yes: bool| at += usize::from(if yes { i[2] } else { i[3] });
        match code {
            0x20 => register = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            0x54 => register &= k,
            0x05 => at += k as usize,
            0x15 => jump(register == k),
            0x25 => jump(register > k),
            0x35 => jump(register >= k),
            0x06 => return k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

#[test]
fn the_default_profile_decides() {
    let plain = runtime_default(0).unwrap();
    let admin = runtime_default(1 << capability::number("SYS_ADMIN").unwrap()).unwrap();
    let check = |program: &[u8], name: &str, first: u64, expect: u32| {
        assert_eq!(answer(program, name, [first, 0, 0, 0, 0, 0]), expect, "{name} {first:#x}");
    };
    for name in ["read", "openat", "execve", "io_pgetevents", "futex", "ptrace"] {
        check(&plain, name, 0, ALLOW);
    }
    for name in [
        "mount",
        "unshare",
        "bpf",
        "keyctl",
        "io_uring_setup",
        "reboot",
        "userfaultfd",
        "kexec_load",
        "setns",
    ] {
        check(&plain, name, 0, ERRNO | 1);
    }
    check(&plain, "clone3", 0, ERRNO | 38);
    check(&plain, "clone", 0x0001_0000, ALLOW);
    check(&plain, "clone", 0x1000_0000, ERRNO | 1);
    check(&plain, "socket", libc::AF_INET as u64, ALLOW);
    check(&plain, "socket", libc::AF_ALG as u64, ERRNO | 1);
    check(&plain, "socket", libc::AF_VSOCK as u64, ERRNO | 1);
    check(&plain, "personality", 0, ALLOW);
    check(&plain, "personality", 0x40000, ERRNO | 1);
    for name in ["mount", "unshare", "clone3", "setns"] {
        check(&admin, name, 0, ALLOW);
    }
    check(&admin, "reboot", 0, ERRNO | 1);
}

#[test]
fn profiles_of_others_decide() {
    let strict = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],"syscalls":[
        {"names":["read","chown32"],"action":"SCMP_ACT_ALLOW"},
        {"names":["write"],"action":"SCMP_ACT_LOG"},
        {"names":["kill"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]},
        {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
    let strict = from_json(strict, 0).unwrap();
    let check = |program: &[u8], name: &str, first: u64, expect: u32| {
        assert_eq!(answer(program, name, [first, 0, 0, 0, 0, 0]), expect, "{name} {first}");
    };
    check(&strict, "read", 0, ALLOW);
    check(&strict, "write", 0, LOG);
    check(&strict, "open", 0, ERRNO | 38);
    check(&strict, "mount", 0, ERRNO | 38);
    check(&strict, "kill", 2, ALLOW);
    check(&strict, "kill", 3, ERRNO | 38);

    let lax = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["chmod"],"action":"SCMP_ACT_ERRNO"},{"names":["chown"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
    let lax = from_json(lax, 0).unwrap();
    check(&lax, "read", 0, ALLOW);
    check(&lax, "chmod", 0, ERRNO | 1);
    check(&lax, "chown", 0, KILL_PROCESS);
    assert!(from_json(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, 0).unwrap().is_empty());
    assert!(from_json(r#"{"defaultAction":"SCMP_ACT_WHATEVER"}"#, 0).is_err());
    assert!(from_json("{", 0).is_err());
}
