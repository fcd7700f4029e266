//! The program inside the test image: does what its arguments say, one after the other, and exits with 0 unless told otherwise.
//!
//! Compiled by the tests with plain `rustc`, statically, so it has no crates.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::io::{Read, Write};

unsafe extern "C" {
    fn isatty(fd: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn pause() -> c_int;
    fn fork() -> c_int;
    fn _exit(code: c_int) -> !;
}

extern "C" fn on_signal(number: c_int) {
    // SAFETY: `_exit` may be called in handlers.
    unsafe { _exit(100 + number) }
}

fn told(result: c_long) {
    if result < 0 {
        println!("errno {}", std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    } else {
        println!("ok");
    }
}

fn io<T>(result: std::io::Result<T>, show: impl FnOnce(T) -> String) {
    match result {
        Ok(value) => println!("{}", show(value)),
        Err(error) => println!("errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    while let Some(word) = arguments.next() {
        let mut next = || arguments.next().expect("an argument is missing");
        match word.as_str() {
            "exit" => std::process::exit(next().parse().unwrap()),
            "print" => println!("{}", next()),
            "partial" => {
                print!("{}", next());
                std::io::stdout().flush().unwrap();
            }
            "complain" => eprintln!("{}", next()),
            "cat" => drop(std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()).unwrap()),
            "line" => {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).unwrap();
                print!("got {line}");
            }
            "repeat" => {
                let (text, times) = (next(), next().parse::<usize>().unwrap());
                let mut out = std::io::stdout().lock();
                (0..times).for_each(|n| writeln!(out, "{text} {n}").unwrap());
            }
            "wait" => unsafe {
                signal(15, on_signal);
                signal(10, on_signal);
                println!("waiting");
                loop {
                    pause();
                }
            },
            "hang" => {
                println!("hanging");
                loop {
                    unsafe { pause() };
                }
            }
            "env" => println!("{}", std::env::var(next()).unwrap_or_else(|_| "unset".into())),
            "cwd" => println!("{}", std::env::current_dir().unwrap().display()),
            "read" => io(std::fs::read_to_string(next()), |text| text.trim_end().to_owned()),
            "grep" => {
                let (path, key) = (next(), next());
                let text = std::fs::read_to_string(path).unwrap();
                text.lines().filter(|line| line.contains(&key)).for_each(|line| println!("{line}"));
            }
            "write" => {
                let (path, text) = (next(), next());
                io(std::fs::write(path, text), |()| "ok".into());
            }
            "link" => io(std::fs::read_link(next()), |target| target.display().to_string()),
            "list" => io(std::fs::read_dir(next()), |entries| {
                let mut names: Vec<_> =
                    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
                names.sort();
                names.join(" ")
            }),
            "open" => io(std::fs::File::open(next()), |_| "ok".into()),
            "tty" => println!("{}", unsafe { isatty(0) == 1 && isatty(1) == 1 && isatty(2) == 1 }),
            "size" => {
                let mut size = [0u16; 4];
                unsafe { ioctl(0, 0x5413, size.as_mut_ptr().cast()) };
                println!("{}x{}", size[1], size[0]);
            }
            "syscall" => {
                let (number, first) = (next().parse::<c_long>().unwrap(), next().parse::<c_long>().unwrap());
                told(unsafe { syscall(number, first, 0, 0, 0, 0, 0) });
            }
            "mknod" => {
                let path = CString::new(next()).unwrap();
                let (mode, device) = (next().parse().unwrap(), next().parse().unwrap());
                told(unsafe { mknod(path.as_ptr(), mode, device) }.into());
            }
            "eat" => {
                let mut all: Vec<Vec<u8>> = Vec::new();
                for _ in 0..next().parse::<usize>().unwrap() {
                    all.push(vec![7; 1 << 20]);
                }
                println!("{}", all.len());
            }
            "forks" => {
                let mut made = 0;
                for _ in 0..next().parse::<usize>().unwrap() {
                    match unsafe { fork() } {
                        0 => loop {
                            unsafe { pause() };
                        },
                        -1 => break,
                        _ => made += 1,
                    }
                }
                println!("{made}");
            }
            "pids" => {
                let numbers = std::fs::read_dir("/proc")
                    .unwrap()
                    .filter_map(|e| e.unwrap().file_name().into_string().ok());
                let mut names: Vec<String> = numbers
                    .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
                    .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok())
                    .map(|name| name.trim().to_owned())
                    .collect();
                names.sort();
                println!("{}", names.join(" "));
            }
            "all" => {
                let mut text = Vec::new();
                std::io::stdin().read_to_end(&mut text).unwrap();
                println!("{} bytes", text.len());
            }
            other => panic!("unknown word {other}"),
        }
        std::io::stdout().flush().unwrap();
    }
}
