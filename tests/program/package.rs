//! The Debian package: it is installed into a folder as a system root, run as its unit says, and
//! removed. The machine's own packages and units are left alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::skipped::report_skipped;
use crate::world::{Folder, Manager, ask, free, server, signal, watch};

/// Returns whether the package can be built and installed here; prints the reason if not.
fn can_run() -> bool {
    let missing = if rustix::process::getuid().is_root() {
        let programs = ["dpkg", "cargo-deb"];
        programs
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_err())
    } else {
        Some("root")
    };
    if let Some(missing) = missing {
        assert!(std::env::var_os("CI").is_none(), "the test needs {missing}");
        report_skipped(missing);
    }
    missing.is_none()
}

/// An empty system, in which packages can be installed.
struct SystemRoot {
    root: PathBuf,
    /// What dpkg knows of the system, beside it.
    database: PathBuf,
}

impl SystemRoot {
    fn new(folder: &Folder) -> Self {
        let [root, database] = ["root", "dpkg"].map(|name| folder.0.join(name));
        for folder in [&root, &database.join("info"), &database.join("updates")] {
            fs::create_dir_all(folder).expect("a folder");
        }
        fs::write(database.join("status"), "").expect("a file");
        Self { root, database }
    }

    fn dpkg(&self, words: &[&str]) {
        let output = Command::new("dpkg")
            .arg(format!("--instdir={}", self.root.display()))
            .arg(format!("--admindir={}", self.database.display()))
            // The root has no shell: scripts run outside, and are told of the root by DPKG_ROOT. It
            // has no libc6 either.
            .args(["--force-script-chrootless", "--force-depends"])
            .arg(format!("--log={}", self.database.join("log").display()))
            .args(words)
            .output()
            .expect("dpkg");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "dpkg {words:?}: {stderr}");
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The files, with absolute paths as the installed system has them.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("a file").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let below = path.strip_prefix(&self.root).expect("below the root");
                    files.insert(format!("/{}", below.to_str().expect("text")));
                }
            }
        }
        files
    }

    /// A command of the unit, such as `ExecStart`, with its paths in this root.
    fn unit_command(&self, key: &str) -> Command {
        let unit = fs::read_to_string(self.path("/usr/lib/systemd/system/lvs.service"));
        let unit = unit.expect("a unit");
        let prefix = format!("{key}=");
        let line = unit.lines().find_map(|line| line.strip_prefix(&prefix)).expect("a command");
        let mut words = line.split_whitespace().map(|word| match word.starts_with('/') {
            true => self.path(word),
            false => PathBuf::from(word),
        });
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        command
    }
}

/// Makes the package of the program that `cargo test` has built.
fn build(folder: &Folder) -> PathBuf {
    let target = folder.0.join("target");
    fs::create_dir_all(target.join("release")).expect("a folder");
    let program = env!("CARGO_BIN_EXE_lvs");
    fs::copy(program, target.join("release/lvs")).expect("the program is built");
    let package = folder.0.join("lvs.deb");
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/package"))
        .args(["--no-build", "--fast", "--output"])
        .arg(&package)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    package
}

#[test]
fn the_package_installs_runs_by_its_unit_and_leaves_only_its_configuration() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("package");
    let package = build(&folder);
    let system = SystemRoot::new(&folder);
    system.dpkg(&["--install", package.to_str().expect("text")]);
    let installed = system.files();
    for file in [
        "/usr/bin/lvs",
        "/etc/lvs/lvs.toml",
        "/usr/lib/systemd/system/lvs.service",
        "/usr/lib/systemd/system/lvs.socket",
        "/usr/share/man/man8/lvs.8.gz",
        "/usr/share/man/man8/lvs-ctl-list.8.gz",
        "/usr/share/bash-completion/completions/lvs",
        "/usr/share/doc/lvs/changelog.gz",
        "/usr/share/doc/lvs/copyright",
    ] {
        assert!(installed.contains(file), "{file} is not in {installed:?}");
    }

    // The sample is valid as it is; then an operator writes another configuration in its place.
    let check = |system: &SystemRoot| system.unit_command("ExecStartPre").output().expect("lvs");
    assert!(check(&system).status.success());
    let ([listen], a, b) = (free(), server(b'a'), server(b'b'));
    let written = folder.configure("", listen, a);
    let configuration = system.path("/etc/lvs/lvs.toml");
    fs::copy(&written, &configuration).expect("a file");
    assert!(check(&system).status.success());

    let manager = Manager::new(&folder);
    let mut child = system
        .unit_command("ExecStart")
        .env("NOTIFY_SOCKET", &manager.path)
        .stdout(Stdio::null())
        .spawn()
        .expect("lvs");
    let _watchdog = watch(child.id());
    manager.until("READY=1");
    assert_eq!(ask(listen), b'a');
    fs::copy(folder.configure("", listen, b), &configuration).expect("a file");
    // What systemd does for `systemctl reload`, with Type=notify-reload.
    signal("HUP", child.id());
    manager.until("RELOADING=1");
    manager.until("READY=1");
    assert_eq!(ask(listen), b'b');
    signal("TERM", child.id());
    manager.until("STOPPING=1");
    assert_eq!(child.wait().expect("a child of ours").code(), Some(0));

    system.dpkg(&["--remove", "lvs"]);
    assert_eq!(system.files(), BTreeSet::from(["/etc/lvs/lvs.toml".to_owned()]));
    system.dpkg(&["--purge", "lvs"]);
    assert_eq!(system.files(), BTreeSet::new());
}

#[test]
fn systemd_accepts_the_units() {
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib");
    let folder = Folder::new("units");
    // Verification wants the program to be there.
    let program = env!("CARGO_BIN_EXE_lvs");
    for unit in ["lvs.service", "lvs.socket"] {
        let text = fs::read_to_string(contrib.join(unit)).expect("a unit");
        let text = text.replace("/usr/bin/lvs", program);
        fs::write(folder.path(unit), text).expect("a file");
    }
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no", &folder.path("lvs.service"), &folder.path("lvs.socket")])
        .output();
    let output = match verify {
        Ok(output) => output,
        Err(error) => return report_skipped(format!("systemd-analyze: {error}")),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    // systemd before 253 does not know the type and ignores it, as the unit's comment says.
    let is_known = |line: &&str| line.contains("notify-reload");
    let complaints = stderr.lines().filter(|line| line.contains("lvs.") && !is_known(line));
    assert_eq!(complaints.collect::<Vec<_>>(), [""; 0]);
}
