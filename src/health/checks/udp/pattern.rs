//! A pattern of bytes with wildcards.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A pattern of bytes, in which bytes, or halves of bytes, may be wildcards.
///
/// # Text
/// Hexadecimal digits in either case, two a byte, the high half first; `x` or `X` in place of a
/// digit is a wildcard of four bits. White space separates groups; if a group has an odd number of
/// digits, the last digit is a byte with a high half of 0. So `Ab12f 3 xx` is the bytes `ab 12 0f
/// 03` and a byte of any value. This is the form of keepalived's `require_reply`.
///
/// # Examples
/// ```
/// use lvs::health::BytePattern;
///
/// let pattern: BytePattern = "48 65 6c 6c 6f xx".parse()?;
/// assert!(pattern.is_prefix_of(b"Hello, world"));
/// assert!(!pattern.is_prefix_of(b"Hello"), "the sixth byte is missing");
/// # Ok::<(), lvs::health::BytePatternError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct BytePattern {
    bytes: Vec<MaskedByte>,
}

/// A byte of which the bits in the mask are compared.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct MaskedByte {
    value: u8,
    mask: u8,
}

impl BytePattern {
    /// Returns the length of the pattern in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether the pattern is empty; any bytes begin with an empty pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns whether bytes begin with the pattern.
    #[must_use]
    pub fn is_prefix_of(&self, bytes: &[u8]) -> bool {
        let matches =
            |(expected, byte): (&MaskedByte, &u8)| (expected.value ^ byte) & expected.mask == 0;
        bytes.len() >= self.len() && self.bytes.iter().zip(bytes).all(matches)
    }
}

/// A pattern of these bytes without wildcards.
impl From<&[u8]> for BytePattern {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: bytes.iter().map(|&value| MaskedByte { value, mask: 0xff }).collect() }
    }
}

/// A pattern of these bytes without wildcards.
impl<const N: usize> From<&[u8; N]> for BytePattern {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl FromStr for BytePattern {
    type Err = BytePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = Vec::new();
        // The high half of a byte whose low half has not been parsed yet.
        let mut half: Option<MaskedByte> = None;
        for (position, character) in text.char_indices() {
            if character.is_whitespace() {
                bytes.extend(half.take().map(|low| MaskedByte { mask: low.mask | 0xf0, ..low }));
                continue;
            }
            let next = match (character, character.to_digit(16)) {
                ('x' | 'X', _) => MaskedByte { value: 0, mask: 0 },
                (_, Some(digit)) => MaskedByte { value: digit as u8, mask: 0x0f },
                (_, None) => return Err(BytePatternError { position, character }),
            };
            match half.take() {
                None => half = Some(next),
                Some(high) => bytes.push(MaskedByte {
                    value: high.value << 4 | next.value,
                    mask: high.mask << 4 | next.mask,
                }),
            }
        }
        bytes.extend(half.map(|low| MaskedByte { mask: low.mask | 0xf0, ..low }));
        Ok(Self { bytes })
    }
}

/// Writes two characters a byte; parsing the text gives an equal pattern.
impl fmt::Display for BytePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.bytes {
            for shift in [4, 0] {
                match byte.mask >> shift & 0x0f {
                    0 => f.write_str("x")?,
                    _ => write!(f, "{:x}", byte.value >> shift & 0x0f)?,
                }
            }
        }
        Ok(())
    }
}

/// An invalid character in the text of a [`BytePattern`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{character:?} at byte {position} is neither a hexadecimal digit nor `x`")]
pub struct BytePatternError {
    position: usize,
    character: char,
}
