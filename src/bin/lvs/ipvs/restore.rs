//! The lines of `--restore`, each of which has the arguments of a command.

use std::io::{self, BufRead, ErrorKind, Read as _};

/// The longest line, in bytes.
const MAX_LINE: u64 = 64 << 10;
/// The most lines that are read before the first is executed, in bytes.
const MAX_TEXT: usize = 256 << 20;

/// Reads line by line.
pub(super) fn lines(mut input: impl BufRead) -> impl Iterator<Item = io::Result<String>> {
    std::iter::from_fn(move || read_line(&mut input).transpose())
}

/// Reads all lines.
pub(super) fn read_all(input: impl BufRead) -> io::Result<Vec<String>> {
    let (mut read, mut length) = (Vec::new(), 0);
    for line in lines(input) {
        let line = line?;
        length += line.len();
        if length > MAX_TEXT {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is longer than 256 MiB"));
        }
        read.push(line);
    }
    Ok(read)
}

/// Splits a line into words. It may begin with `ipvsadm`, and end with a comment.
pub(super) fn words(line: &str) -> Vec<String> {
    let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
    words.filter(|word| *word != "ipvsadm").map(str::to_owned).collect()
}

fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    match line.len() as u64 {
        0 => Ok(None),
        MAX_LINE => Err(io::Error::new(ErrorKind::InvalidData, "a line is longer than 64 KiB")),
        // What is not UTF-8 is no option, no number and no address.
        _ => Ok(Some(String::from_utf8_lossy(&line).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_have_a_name_a_comment_and_no_end() {
        let text = "-A -t 10.0.0.1:80 -s rr \n\n# a comment\nipvsadm -C # all\r\n-L";
        let lines = read_all(text.as_bytes()).unwrap();
        let words: Vec<_> = lines.iter().map(|line| words(line)).collect();
        let none: [&str; 0] = [];
        assert_eq!(words[0], ["-A", "-t", "10.0.0.1:80", "-s", "rr"]);
        assert_eq!((&words[1][..], &words[2][..]), (&none.map(str::to_owned)[..], &[][..]));
        assert_eq!(
            (&words[3][..], &words[4][..]),
            (&["-C".to_owned()][..], &["-L".to_owned()][..])
        );
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let text = "x".repeat(1 << 20);
        let error = read_all(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "a line is longer than 64 KiB");
    }
}
