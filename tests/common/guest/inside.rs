//! What the first process of a kernel does before a test.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

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
const FIRST_NAMESPACE: &str = "first";

/// Moves the network card of this number at a wire to a network namespace, and gives it another name.
pub(crate) fn move_card(wire: u8, number: u8, namespace: &str, device: &str) {
    let address = super::qemu::card_address(wire, number);
    let output = Command::new("ip").args(["-n", FIRST_NAMESPACE, "-o", "link"]).output();
    let text = String::from_utf8(output.expect("ip runs").stdout).expect("text");
    let line = text.lines().find(|line| line.contains(&address)).expect("the card");
    let card = line.split(": ").nth(1).expect("a name");
    ip(&["-n", FIRST_NAMESPACE, "link", "set", card, "netns", namespace]);
    ip(&["-n", namespace, "link", "set", card, "name", device]);
}

/// Moves a network card back: a thread may keep its namespace until the process ends.
pub(crate) fn return_card(namespace: &str, device: &str) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("card{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    for change in [
        format!("{device} down"),
        format!("{device} name {name}"),
        format!("{name} netns {FIRST_NAMESPACE}"),
    ] {
        let line = format!("-n {namespace} link set {change}");
        // What the test has found is more important.
        let _ = Command::new("ip").args(line.split(' ')).output();
    }
}

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
