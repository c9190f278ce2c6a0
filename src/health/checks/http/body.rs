//! What is expected of a body.

use md5::Md5;
use regex::bytes::Regex;
use sha2::{Digest, Sha256};

use super::HttpCheckError;

/// One thing that must hold of a body.
#[derive(Clone, Debug)]
pub(super) enum Expectation {
    Matches(Regex),
    DoesNotMatch(Regex),
    Sha256(String),
    Md5(String),
}

impl Expectation {
    pub(super) fn matching(regex: &str) -> Result<Self, HttpCheckError> {
        compile(regex).map(Self::Matches)
    }

    pub(super) fn not_matching(regex: &str) -> Result<Self, HttpCheckError> {
        compile(regex).map(Self::DoesNotMatch)
    }

    pub(super) fn digest(digest: &str) -> Result<Self, HttpCheckError> {
        let digits = digest.to_ascii_lowercase();
        match digits.len() {
            _ if !digits.bytes().all(|b| b.is_ascii_hexdigit()) => {}
            64 => return Ok(Self::Sha256(digits)),
            32 => return Ok(Self::Md5(digits)),
            _ => {}
        }
        Err(HttpCheckError::Digest { digest: digest.to_owned() })
    }

    /// Says what is wrong with a body; `None` if it is as expected.
    pub(super) fn fault(&self, body: &[u8]) -> Option<String> {
        let length = body.len();
        match self {
            Self::Matches(regex) => {
                let reason = || format!("the body of {length} bytes does not match {regex}");
                (!regex.is_match(body)).then(reason)
            }
            Self::DoesNotMatch(regex) => {
                let reason = || format!("the body of {length} bytes matches {regex}");
                regex.is_match(body).then(reason)
            }
            Self::Sha256(expected) => differs("SHA-256", expected, &hex(&Sha256::digest(body))),
            Self::Md5(expected) => differs("MD5", expected, &hex(&Md5::digest(body))),
        }
    }
}

fn compile(regex: &str) -> Result<Regex, HttpCheckError> {
    Regex::new(regex).map_err(|error| HttpCheckError::Regex {
        regex: regex.to_owned(),
        reason: error.to_string(),
    })
}

fn differs(what: &str, expected: &str, is: &str) -> Option<String> {
    (expected != is).then(|| format!("the body's {what} is {is}, not {expected}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn digests_are_told_apart_by_their_length() {
        let md5 = Expectation::digest("5D41402ABC4B2A76B9719D911017C592").expect("MD5 of hello");
        assert_eq!(md5.fault(b"hello"), None);
        let sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let sha = Expectation::digest(sha).expect("SHA-256 of hello");
        assert_eq!(sha.fault(b"hello"), None);
        assert!(sha.fault(b"Hello").expect("another body").starts_with("the body's SHA-256 is "));
        for wrong in ["", "abc", "5d41402abc4b2a76b9719d911017c59x"] {
            assert!(Expectation::digest(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn patterns_are_about_bytes() {
        let it = Expectation::matching("^ok(?-u:\\xff)$").expect("a pattern");
        assert_eq!(it.fault(b"ok\xff"), None);
        let it = Expectation::not_matching("error").expect("a pattern");
        assert!(it.fault(b"an error").is_some() && it.fault(b"well").is_none());
        let error = Expectation::matching("(").expect_err("no pattern").to_string();
        assert!(error.starts_with("\"(\" is no regular expression: "), "{error}");
    }
}
