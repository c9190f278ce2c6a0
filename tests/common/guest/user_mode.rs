//! User-mode Linux: a kernel that is a process, and whose files are this machine's.

use std::fs;
use std::process::Command;

use super::inside::MODULES;
use super::{Guest, WorkFolder, modules, packages};

pub(super) fn command(guest: &Guest) -> Result<(Command, WorkFolder), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("user-mode Linux is packaged for x86-64 only".to_owned());
    }
    let root = packages::unpack("user-mode-linux", &["user-mode-linux"])?;
    let programs = guest.program_paths()?;
    let folder = WorkFolder::create()?;
    let describe = |error: std::io::Error| format!("{}: {error}", folder.0.display());
    let mut list = String::new();
    for (name, module) in modules::in_order(&root.join("usr/lib/uml/modules"), &guest.modules)? {
        let path = folder.0.join(format!("{name}.ko"));
        fs::write(&path, module).map_err(describe)?;
        list += &format!("{}\n", path.display());
    }
    fs::write(folder.0.join("modules"), list).map_err(describe)?;
    let own = std::env::current_exe().map_err(describe)?;
    let mut path = "/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    for program in programs.iter().filter_map(|path| path.parent()) {
        path = format!("{}:{path}", program.display());
    }
    let mut command = Command::new(root.join("usr/bin/linux.uml"));
    // It keeps its memory in a file there, from which it must be able to run code.
    command.env("TMPDIR", "/dev/shm").env("HOME", &folder.0);
    command.arg(format!("uml_dir={}", folder.0.display()));
    command.args(["mem=256M", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "panic=1"]);
    command.args(["con=null", "con0=fd:0,fd:1", "ssl=null"]);
    command.arg(format!("init={}", own.display()));
    // What the kernel does not know is the environment of its first process; what is behind `--` are
    // its arguments.
    command.arg(format!("PATH={path}"));
    command.arg(format!("{MODULES}={}", folder.0.join("modules").display()));
    command.arg("--").args(guest.arguments());
    Ok((command, folder))
}
