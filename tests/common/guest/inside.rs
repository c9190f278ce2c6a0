//! What the first process of a kernel does before a test.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use rustix::mount::{MountFlags, mount};

/// The variable that names the file with the paths of the modules, one a line.
pub(super) const MODULES: &str = "LVS_MODULES";

/// Prepares a test that runs in a kernel of its own: mounts, modules, and a new network namespace with
/// its `lo` up. Returns whether this is such a kernel; a test returns if not.
pub(crate) fn enter() -> bool {
    if std::process::id() != 1 {
        return false;
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(set_up);
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip(&["link", "set", "lo", "up"]);
    true
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    assert!(status.expect("the program ip starts").success(), "ip {arguments:?}");
}

/// Tells whether the processor is emulated: tests that do a thing a thousand times do less then.
pub(crate) fn is_emulated() -> bool {
    Path::new(super::qemu::MODULE_LIST).exists()
}

/// The name of the network namespace that the first process has at first, in which the network cards are.
pub(crate) const FIRST_NAMESPACE: &str = "first";

fn set_up() {
    let mount = |kind: &str, target: &str| {
        mount(kind, target, kind, MountFlags::empty(), None)
            .unwrap_or_else(|error| panic!("mount {target}: {error}"));
    };
    mount("proc", "/proc");
    mount("sysfs", "/sys");
    mount("tmpfs", "/run");
    // A kernel with an initramfs leaves it to the first process.
    if !Path::new("/dev/null").exists() {
        mount("devtmpfs", "/dev");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a readable file");
    println!("Linux {}, up {}", release.trim(), uptime());
    let list = std::env::var(MODULES).expect("the kernel passes the variable on");
    for path in fs::read_to_string(&list).expect("a list of modules").lines() {
        load(Path::new(path));
    }
    println!("modules loaded, up {}", uptime());
    ip(&["netns", "attach", FIRST_NAMESPACE, "1"]);
}

fn load(path: &Path) {
    let file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => panic!("load {}: {error}", path.display()),
    }
}

fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").expect("a readable file");
    text.split(' ').next().unwrap_or_default().to_owned() + " s"
}
