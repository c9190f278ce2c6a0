//! Expectations of a response body.

use md5::Md5;
use regex::bytes::Regex;
use sha2::{Digest, Sha256};

use super::error::HttpCheckError;

/// A condition that a body must meet.
#[derive(Clone, Debug)]
pub(super) enum BodyExpectation {
    Matches(Regex),
    DoesNotMatch(Regex),
    Sha256(String),
    Md5(String),
}

impl BodyExpectation {
    pub(super) fn matching(regex: &str) -> Result<Self, HttpCheckError> {
        compile_regex(regex).map(Self::Matches)
    }

    pub(super) fn not_matching(regex: &str) -> Result<Self, HttpCheckError> {
        compile_regex(regex).map(Self::DoesNotMatch)
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

    /// Returns the reason if the body does not meet the condition.
    pub(super) fn mismatch(&self, body: &[u8]) -> Option<String> {
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
            Self::Sha256(expected) => {
                digest_mismatch("SHA-256", expected, &to_hex(&Sha256::digest(body)))
            }
            Self::Md5(expected) => digest_mismatch("MD5", expected, &to_hex(&Md5::digest(body))),
        }
    }
}

fn compile_regex(regex: &str) -> Result<Regex, HttpCheckError> {
    Regex::new(regex).map_err(|error| HttpCheckError::Regex {
        regex: regex.to_owned(),
        reason: error.to_string(),
    })
}

fn digest_mismatch(algorithm: &str, expected: &str, digest: &str) -> Option<String> {
    (expected != digest)
        .then(|| format!("the {algorithm} of the body is {digest}, expected {expected}"))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn digests_are_told_apart_by_their_length() {
        let md5 =
            BodyExpectation::digest("5D41402ABC4B2A76B9719D911017C592").expect("MD5 of hello");
        assert_eq!(md5.mismatch(b"hello"), None);
        let sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let sha = BodyExpectation::digest(sha).expect("SHA-256 of hello");
        assert_eq!(sha.mismatch(b"hello"), None);
        assert!(
            sha.mismatch(b"Hello")
                .expect("another body")
                .starts_with("the SHA-256 of the body is ")
        );
        for invalid in ["", "abc", "5d41402abc4b2a76b9719d911017c59x"] {
            assert!(BodyExpectation::digest(invalid).is_err(), "{invalid:?}");
        }
    }

    #[test]
    fn patterns_match_bytes() {
        let expectation = BodyExpectation::matching("^ok(?-u:\\xff)$").expect("a pattern");
        assert_eq!(expectation.mismatch(b"ok\xff"), None);
        let expectation = BodyExpectation::not_matching("error").expect("a pattern");
        assert!(
            expectation.mismatch(b"an error").is_some() && expectation.mismatch(b"well").is_none()
        );
        let error = BodyExpectation::matching("(").expect_err("no pattern").to_string();
        assert!(error.starts_with("\"(\" is not a regular expression: "), "{error}");
    }
}
