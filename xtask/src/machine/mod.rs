//! `cargo xtask machine`: a node on a machine with cgroup v2 alone, emulated in software.
//!
//! A machine whose own hierarchies are version 1 cannot show that limits hold under version 2. So qemu boots the distribution's cloud
//! kernel with an initramfs that holds clipper, kubectl, an image and busybox; [`CHECK`] runs there as the first process and says what
//! it sees on the serial line.

use crate::kit::{call, kit, output, program, target};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
/// The Debian package that depends on the present cloud kernel.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const INIT: &str = include_str!("init");
const CHECK: &str = include_str!("check");
/// What of the kernel's modules a node needs: the rest would only make the boot longer.
const MODULES: &[&str] =
    &["kernel/net", "kernel/lib", "kernel/crypto", "kernel/fs/overlayfs", "kernel/drivers/net/veth.ko"];
/// The emulated machine runs some twenty times slower than a real one.
const SECONDS_MAX: u64 = 480;
/// The tree of the initramfs is unpacked to memory and then moved.
const MEMORY_MB: u32 = 3072;
/// What begins a line that says how far it is.
const MARK: &str = "MACHINE ";

/// What to boot.
#[derive(Args, Default)]
pub struct Options {
    /// A clipper that is built already.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Whether the emulator and the programs that make its disk are here: says what is missing.
pub fn missing() -> Option<String> {
    let lacks = |name: &str| {
        Command::new(name).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    let missing: Vec<&str> =
        [QEMU, "busybox", "dpkg-deb", "apt-get"].into_iter().filter(|name| lacks(name)).collect();
    (!missing.is_empty())
        .then(|| format!("{} missing (Debian: qemu-system-x86, busybox-static)", missing.join(", ")))
}

/// Boots the machine and says what it showed.
///
/// # Errors
/// Something is missing, the machine does not come to its end in time, or what it shows is wrong.
pub fn run(options: &Options) -> Result<()> {
    if let Some(missing) = missing() {
        bail!(missing);
    }
    let binary = options.binary.clone().map_or_else(crate::cluster::build, Ok)?;
    let folder = target().join("machine");
    let (kernel, modules) = kernel(&folder)?;
    let disk = initramfs(&folder, &binary, &modules)?;
    let began = Instant::now();
    let mut qemu = Command::new(QEMU)
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .args(["-m", &MEMORY_MB.to_string(), "-append", "console=ttyS0 panic=-1 quiet"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(disk)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the emulator")?;
    let told = watch(&mut qemu, began + Duration::from_secs(SECONDS_MAX));
    let _ = qemu.kill();
    qemu.wait()?;
    told?;
    println!("machine: passed in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Reads the serial line until the machine says how it ended.
fn watch(qemu: &mut Child, until: Instant) -> Result<()> {
    let serial = qemu.stdout.take().context("the emulator has no output")?;
    let (tell, lines) = channel();
    std::thread::spawn(move || {
        // Firmware and kernel may write anything.
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            if tell.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                match line.strip_prefix(MARK) {
                    Some("passed") => return Ok(()),
                    Some(failed) if failed.starts_with("failed") => bail!("{failed}"),
                    _ => {}
                }
            }
            Err(RecvTimeoutError::Timeout) => bail!("the machine was not done in {SECONDS_MAX} s"),
            Err(RecvTimeoutError::Disconnected) => bail!("the machine stopped before it was done"),
        }
    }
}

/// The kernel and its tree of modules, taken from the distribution's package without installing it.
fn kernel(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let unpacked = folder.join("kernel");
    if only(&unpacked.join("boot"), "vmlinuz-").is_err() {
        let depends = output(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]), "")?;
        let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        let package = package.with_context(|| format!("no package {KERNEL_PACKAGE}: run apt-get update"))?;
        fs::create_dir_all(&unpacked)?;
        call(
            Command::new("apt-get").args(["download", &format!("linux-image-{package}")]).current_dir(folder),
        )?;
        call(Command::new("dpkg-deb").arg("-x").arg(only(folder, "linux-image-")?).arg(&unpacked))?;
    }
    Ok((only(&unpacked.join("boot"), "vmlinuz-")?, only(&unpacked.join("lib/modules"), "")?))
}

/// The entry of a folder whose name begins so.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found =
        paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.with_context(|| format!("nothing called {prefix}... in {}", folder.display()))
}

/// The tree that the machine boots, as an archive.
fn initramfs(folder: &Path, binary: &Path, modules: &Path) -> Result<PathBuf> {
    let tree = folder.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for name in ["bin", "images", "dev", "proc"] {
        fs::create_dir_all(tree.join(name))?;
    }
    let busybox = output(Command::new("sh").args(["-c", "command -v busybox"]), "")?;
    for (from, to) in [
        (Path::new(busybox.trim()), "bin/busybox"),
        (binary, "bin/clipper"),
        (&program("kubectl"), "bin/kubectl"),
        (&kit().join("images/busybox.tar"), "images/busybox.tar"),
    ] {
        fs::copy(from, tree.join(to)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    libraries(binary, &tree)?;
    fs::write(tree.join("init"), INIT)?;
    fs::write(tree.join("check"), CHECK)?;
    call(Command::new("chmod").args(["755", "init"]).current_dir(&tree))?;
    let version = modules.file_name().context("modules without a version")?;
    let own = tree.join("lib/modules").join(version);
    for part in MODULES.iter().chain(&["modules.builtin", "modules.order"]) {
        let to = own.join(part);
        fs::create_dir_all(to.parent().unwrap_or(&own))?;
        call(Command::new("cp").arg("-a").arg(modules.join(part)).arg(to))?;
    }
    call(Command::new("busybox").arg("depmod").arg("-b").arg(&tree).arg(version))?;
    let disk = folder.join("initramfs");
    let archive = fs::File::create(&disk)?;
    let pack = "find . | busybox cpio -o -H newc";
    call(Command::new("sh").args(["-c", pack]).current_dir(&tree).stdout(archive))?;
    Ok(disk)
}

/// What the binary is linked with, where it looks for it.
fn libraries(binary: &Path, tree: &Path) -> Result<()> {
    let listed = output(Command::new("ldd").arg(binary), "")?;
    for path in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = tree.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(tree))?;
        fs::copy(path, &to).with_context(|| format!("cannot copy {path}"))?;
    }
    Ok(())
}
