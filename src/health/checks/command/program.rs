//! Whether a program can be started, found out without starting it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use thiserror::Error;

/// The reason why a program cannot be started.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum CommandCheckError {
    /// There is no file at the path.
    #[error("program {} does not exist", program.display())]
    NotFound {
        /// The program.
        program: PathBuf,
    },
    /// No folder of `PATH` has the program.
    #[error("program {} is in no folder of PATH", program.display())]
    NotInPath {
        /// The program.
        program: PathBuf,
    },
    /// The path leads to a folder or a device.
    #[error("program {} is not a file", program.display())]
    NotFile {
        /// The program.
        program: PathBuf,
    },
    /// This process may not execute the file.
    #[error("program {} is not executable for this user", program.display())]
    NotExecutable {
        /// The program.
        program: PathBuf,
    },
    /// The first line of a script names an interpreter that cannot be started.
    #[error("script {} names an interpreter that cannot be started: {reason}", program.display())]
    Interpreter {
        /// The script.
        program: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// The longest first line of a script that the kernel reads.
const MAX_SCRIPT_LINE: usize = 256;

/// Checks that a program, as a path or a name in `PATH`, can be started, and the interpreter of a
/// script. Reads the beginning of the file.
pub(super) fn validate_program(program: &Path) -> Result<(), CommandCheckError> {
    let path = find_program(program)?;
    validate_file(&path)?;
    let Some(interpreter) = read_interpreter(&path) else { return Ok(()) };
    validate_file(&interpreter).map_err(|error| CommandCheckError::Interpreter {
        program: path,
        reason: error.to_string(),
    })
}

/// Returns the path of a program; a name without a slash is searched in `PATH`, as `execvp` does.
fn find_program(program: &Path) -> Result<PathBuf, CommandCheckError> {
    if program.as_os_str().as_bytes().contains(&b'/') {
        return Ok(program.to_owned());
    }
    let folders = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut candidates = std::env::split_paths(&folders).map(|folder| folder.join(program));
    candidates
        .find(|path| validate_file(path).is_ok())
        .ok_or_else(|| CommandCheckError::NotInPath { program: program.to_owned() })
}

fn validate_file(path: &Path) -> Result<(), CommandCheckError> {
    let program = path.to_owned();
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => return Err(CommandCheckError::NotFile { program }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(CommandCheckError::NotExecutable { program });
        }
        Err(_) => return Err(CommandCheckError::NotFound { program }),
        Ok(_) => {}
    }
    access(path, Access::EXEC_OK).map_err(|_| CommandCheckError::NotExecutable { program })
}

/// Returns the interpreter of a script; `None` for another program, or one that cannot be read.
fn read_interpreter(path: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    File::open(path).ok()?.take(MAX_SCRIPT_LINE as u64).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = line.trim_ascii().split(|byte| b" \t".contains(byte)).next()?;
    (!name.is_empty()).then(|| Path::new(OsStr::from_bytes(name)).to_owned())
}
