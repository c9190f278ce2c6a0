//! Debian packages, unpacked below the target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of what is unpacked, and of what kernels are given.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest")
}

/// Downloads packages, with those that they depend on and this machine does not have, and unpacks them.
/// Returns the folder that has them as `/`; it is kept for the next time.
pub(super) fn unpack(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = folder().join(name);
    let (root, done, archives) =
        (folder.join("root"), folder.join("done"), folder.join("archives"));
    let describe = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(archives.join("partial")).map_err(describe)?;
    // Test binaries run at the same time.
    let lock = File::create(folder.join("lock")).map_err(describe)?;
    lock.lock().map_err(describe)?;
    if done.exists() {
        return Ok(root);
    }
    download(&archives, packages).or_else(|_| {
        // The list of packages may be older than the archive.
        let _ = Command::new("apt-get").args(["update", "-qq"]).output();
        download(&archives, packages)
    })?;
    for archive in fs::read_dir(&archives).map_err(describe)? {
        let path = archive.map_err(describe)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&root))?;
        }
    }
    fs::remove_dir_all(&archives).map_err(describe)?;
    File::create(done).map_err(describe)?;
    Ok(root)
}

fn download(archives: &Path, packages: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
    // Nothing is installed, so that nobody has to wait for who is installing.
    command.args(["-o", "Debug::NoLocking=1", "-qq", "install", "--download-only"]);
    command.args(["--reinstall", "--no-install-recommends", "-y"]).args(packages);
    run(&mut command)
}

/// Runs a command to its end.
pub(super) fn run(command: &mut Command) -> Result<(), String> {
    read(command).map(drop)
}

/// Runs a command, and returns what it prints.
pub(super) fn read(command: &mut Command) -> Result<Vec<u8>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}
