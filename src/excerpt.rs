//! Text from outside (servers, files, programs) as a part of a log line or an error text.

use std::fmt::Write;

/// Returns text from outside in a form that is safe in a log line: escaped, and cut at a length.
///
/// Control characters, double quotes, backslashes and bytes that are not UTF-8 are escaped. Escaped
/// text of more than `max_len` bytes is cut, between two characters, and ends in `…`.
pub(crate) fn excerpt(bytes: &[u8], max_len: usize) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if text.len() >= max_len {
                return text + "…";
            }
            match char {
                '\'' => text.push(char),
                _ => text.extend(char.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            if text.len() >= max_len {
                return text + "…";
            }
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_escaped_and_cut() {
        assert_eq!(excerpt(b"220 it's\r\n", 60), r"220 it's\r\n");
        assert_eq!(excerpt(b"\x93\xfe\0\"\\", 60), r#"\x93\xfe\0\"\\"#);
        assert_eq!(excerpt("gr\u{fc}n \u{202e}".as_bytes(), 60), "gr\u{fc}n \\u{202e}");
        assert_eq!(excerpt(&[b'a'; 60], 60), "a".repeat(60));
        assert_eq!(excerpt(&[b'a'; 61], 60), format!("{}…", "a".repeat(60)));
    }

    proptest! {
        #[test]
        fn any_bytes_give_printable_text_of_bounded_length(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            max_len in 0..200_usize,
        ) {
            let text = excerpt(&bytes, max_len);
            // The last escape is at most `\u{10ffff}`, and the ellipsis has three bytes.
            prop_assert!(text.len() <= max_len + 9 + 3);
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
