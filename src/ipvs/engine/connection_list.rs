//! The kernel's list of connections, which netlink does not have.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _};
use std::ops::ControlFlow;

use crate::ipvs::connection::IpvsConnection;
use crate::sync::{Mutex, lock};

/// The file, which says of each connection whether it was synchronized. Of the thread: `/proc/net` is
/// that of the process.
const PATH: &str = "/proc/thread-self/net/ip_vs_conn_sync";

/// How many lines are read at most. For each page of some 50 lines the kernel walks its table from the
/// beginning, so that the work grows with the square.
const MAX_LINES: usize = 100_000;

/// Several times the longest line.
const MAX_LINE_LEN: u64 = 512;

/// The list of the network namespace in which it was opened, for one reader at a time.
#[derive(Debug)]
pub(super) struct ConnectionList(Result<Mutex<File>, io::ErrorKind>);

impl ConnectionList {
    /// Opens the list; where there is none, reading fails.
    pub(super) fn open() -> Self {
        Self(File::open(PATH).map(Mutex::new).map_err(|error| error.kind()))
    }

    /// Visits the connections until the visitor breaks. Returns whether the list was longer than what is
    /// read of it. Blocks.
    ///
    /// While connections come and go, one may be visited twice, and another left out.
    pub(super) fn visit(
        &self,
        visitor: impl FnMut(IpvsConnection) -> ControlFlow<()>,
    ) -> io::Result<bool> {
        let file =
            self.0.as_ref().map_err(|kind| io::Error::new(*kind, format!("{PATH}: {kind}")))?;
        let mut file = lock(file);
        file.rewind()?;
        visit_lines(BufReader::new(&mut *file), MAX_LINES, visitor)
    }
}

fn visit_lines(
    mut input: impl io::BufRead,
    max: usize,
    mut visitor: impl FnMut(IpvsConnection) -> ControlFlow<()>,
) -> io::Result<bool> {
    let mut line = Vec::new();
    // The first line is the head.
    for number in 0..=max {
        line.clear();
        if input.by_ref().take(MAX_LINE_LEN).read_until(b'\n', &mut line)? == 0 {
            return Ok(false);
        }
        if number == 0 {
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        let connection = IpvsConnection::parse(&text).ok_or_else(|| {
            let text = format!("{PATH} has a line that is no connection: {:?}", text.trim_end());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        if visitor(connection).is_break() {
            return Ok(false);
        }
    }
    Ok(!input.fill_buf()?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n";
    const LINE: &str = "TCP 0A000102 8B3F 0A000001 0050 0A000202 1F90 ESTABLISHED LOCAL      893\n";

    fn visit(input: &str, max: usize, wanted: usize) -> (io::Result<bool>, usize) {
        let mut visited = 0;
        let result = visit_lines(input.as_bytes(), max, |_| {
            visited += 1;
            if visited == wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (result, visited)
    }

    #[test]
    fn reading_is_bounded_and_says_so() {
        let list = HEAD.to_owned() + &LINE.repeat(5);
        for (max, wanted, is_longer, visited) in [
            (9, 9, false, 5),
            (5, 9, false, 5),
            (4, 9, true, 4),
            (9, 2, false, 2),
            (4, 4, false, 4),
        ] {
            let (result, count) = visit(&list, max, wanted);
            assert_eq!((result.expect("a list"), count), (is_longer, visited), "{max} {wanted}");
        }
        for list in ["", HEAD] {
            assert!(!visit(list, 9, 9).0.expect("an empty list"));
        }
    }

    #[test]
    fn a_line_that_is_no_connection_is_an_error() {
        let endless = HEAD.to_owned() + &"A".repeat(10_000);
        for list in [HEAD.to_owned() + LINE + "TCP 0A00\n", endless] {
            let error = visit(&list, 9, 9).0.expect_err("no list");
            assert!(error.to_string().contains("a line that is no connection: \""), "{error}");
        }
    }
}
