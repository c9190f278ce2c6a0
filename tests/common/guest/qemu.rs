//! A kernel of a Debian release in QEMU, which emulates the processor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::InitramfsImage;
use super::inside::MODULES;
use super::{Guest, WorkFolder, modules, packages};

/// The newest kernel that Debian 12 has.
const KERNEL: &str = "linux-image-6.12-cloud-amd64";
/// The variable that names another package with a kernel, such as `linux-image-cloud-amd64`, which depends on
/// Linux 6.1.
const KERNEL_VARIABLE: &str = "LVS_TEST_KERNEL";

/// The file of an initramfs that names its modules.
pub(super) const MODULE_LIST: &str = "/modules/list";

pub(super) fn command(guest: &Guest) -> Result<(Command, WorkFolder), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("the kernel in QEMU is for x86-64, as the test binary must be".to_owned());
    }
    let kernel = std::env::var(KERNEL_VARIABLE).unwrap_or_else(|_| KERNEL.to_owned());
    let kernel = packages::unpack(&kernel, &[&kernel])?;
    let qemu = packages::unpack("qemu-system-x86", &["qemu-system-x86", "seabios"])?;
    let folder = WorkFolder::create()?;
    let describe = |error: std::io::Error| format!("{}: {error}", folder.0.display());
    let image = folder.0.join("initramfs");
    fs::write(&image, initramfs(guest, &kernel)?).map_err(describe)?;

    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
    let libraries = libraries.map(|path| qemu.join(path).display().to_string()).join(":");
    let program = || {
        let mut command = Command::new(qemu.join("usr/bin/qemu-system-x86_64"));
        command.env("LD_LIBRARY_PATH", &libraries);
        command
    };
    let mut command = program();
    for data in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(qemu.join(data));
    }
    // Of the machine types, `microvm` does not always end.
    command.args(["-M", "q35"]);
    match guest.counts_instructions {
        false => command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]),
        true => {
            let version = packages::read(program().arg("--version"))?;
            println!("{}", String::from_utf8_lossy(&version).lines().next().unwrap_or_default());
            command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
            command.args(["-smp", "1"]);
            // Strings are copied by eight octets then, and not by one, each of which is an instruction.
            command.args(["-cpu", "max,-erms,-fsrm"])
        }
    };
    command.args(["-m", "1024", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
    for (wire, cards) in (0..).zip(guest.wires) {
        for end in 0..*cards {
            // A hub connects the cards. It has no segments to join, and no checksums to complete.
            let card = format!("card{wire}-{end}");
            command.arg("-netdev").arg(format!("hubport,id={card},hubid={wire}"));
            let address = card_address(wire, end);
            command.arg("-device");
            command.arg(format!("virtio-net-pci,netdev={card},mac={address},romfile="));
        }
    }
    command.arg("-kernel").arg(find_kernel(&kernel.join("boot"))?).arg("-initrd").arg(image);
    // The first process has the arguments behind `--`, and as environment what the kernel does not know.
    let settings = "console=ttyS0 panic=-1 quiet mitigations=off nokaslr PATH=/bin";
    let arguments = guest.arguments().join(" ");
    command.arg("-append").arg(format!("{settings} {MODULES}={MODULE_LIST} -- {arguments}"));
    Ok((command, folder))
}

/// Returns the hardware address of a card at a wire.
pub(super) fn card_address(wire: u8, end: u8) -> String {
    format!("52:54:00:00:{wire:02x}:{end:02x}")
}

fn initramfs(guest: &Guest, kernel: &Path) -> Result<Vec<u8>, String> {
    let mut image = InitramfsImage::default();
    for folder in ["proc", "sys", "run", "dev", "tmp"] {
        image.add_folder(Path::new(folder));
    }
    let own = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    image.add_program(Path::new("init"), &own)?;
    for program in guest.program_paths()? {
        let name = program.file_name().unwrap_or_default();
        image.add_program(&Path::new("bin").join(name), &program)?;
    }
    let mut list = String::new();
    for (name, module) in modules::in_order(&kernel.join("lib/modules"), &guest.modules)? {
        let path = format!("/modules/{name}.ko");
        image.add_file(Path::new(&path), &module);
        list += &format!("{path}\n");
    }
    image.add_file(Path::new(MODULE_LIST), list.as_bytes());
    Ok(image.finish())
}

fn find_kernel(boot: &Path) -> Result<PathBuf, String> {
    let describe = |error: std::io::Error| format!("{}: {error}", boot.display());
    let entries = fs::read_dir(boot).map_err(describe)?.filter_map(Result::ok);
    let is_kernel = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    };
    let found = entries.map(|entry| entry.path()).find(is_kernel);
    found.ok_or_else(|| format!("{}: no kernel", boot.display()))
}
