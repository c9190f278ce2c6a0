//! Files that the configuration names, read within bounds.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Reads a regular file of at most `max_size` bytes, a number of whole MiB.
///
/// # Errors
/// The system's error; a device, a pipe or a folder is refused, since reading it may never end, and a
/// larger file too.
pub(crate) fn read_regular_file(path: &Path, max_size: u64) -> io::Result<Vec<u8>> {
    // Before it is opened: opening a named pipe waits for a writer.
    let size = match path.metadata()? {
        metadata if metadata.is_file() => metadata.len(),
        _ => return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file")),
    };
    let mut content = Vec::with_capacity(size.min(max_size) as usize + 1);
    // Files below /proc have size 0, and a file may grow.
    File::open(path)?.take(max_size + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max_size {
        let reason = format!("the file is larger than {} MiB", max_size >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    Ok(content)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_bound_are_read() {
        let path = std::env::temp_dir().join(format!("lvs-regular-file-{}", std::process::id()));
        std::fs::write(&path, vec![b'x'; 2 << 20]).expect("a file");
        assert_eq!(read_regular_file(&path, 2 << 20).expect("it fits").len(), 2 << 20);
        let error = read_regular_file(&path, 1 << 20).expect_err("it does not fit");
        assert_eq!(error.to_string(), "the file is larger than 1 MiB");
        std::fs::remove_file(&path).expect("it is there");
        for other in ["/dev/zero", "/proc"] {
            let error = read_regular_file(Path::new(other), 1 << 20).expect_err(other);
            assert_eq!(error.to_string(), "not a regular file", "{other}");
        }
    }
}
