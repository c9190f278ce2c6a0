//! Bytes, some of which may be anything.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Bytes to compare with, of which some, or halves of some, may be anything.
///
/// # Text
/// Hexadecimal digits in either case, two a byte, high one first; `x` or `X` in place of a digit
/// lets these four bits be anything. White space parts groups; where a group has an odd number of
/// digits, the last one is a byte of its own with a high half of 0. So `Ab12f 3 xx` is the bytes
/// `ab 12 0f 03` and one of any value. This is the form of keepalived's `require_reply`.
///
/// # Examples
/// ```
/// use lvs::health::BytePattern;
///
/// let pattern: BytePattern = "48 65 6c 6c 6f xx".parse()?;
/// assert!(pattern.is_prefix_of(b"Hello, world"));
/// assert!(!pattern.is_prefix_of(b"Hello"), "there must be a sixth");
/// # Ok::<(), lvs::health::BytePatternError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct BytePattern {
    bytes: Vec<MaskedByte>,
}

/// One byte; of its value, those bits count that are set in the mask.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct MaskedByte {
    value: u8,
    mask: u8,
}

impl BytePattern {
    /// How many bytes it takes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells whether it takes no bytes at all; everything begins so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Tells whether bytes begin so.
    #[must_use]
    pub fn is_prefix_of(&self, bytes: &[u8]) -> bool {
        let fits = |(wanted, byte): (&MaskedByte, &u8)| (wanted.value ^ byte) & wanted.mask == 0;
        bytes.len() >= self.len() && self.bytes.iter().zip(bytes).all(fits)
    }
}

/// Exactly these bytes.
impl From<&[u8]> for BytePattern {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: bytes.iter().map(|&value| MaskedByte { value, mask: 0xff }).collect() }
    }
}

/// Exactly these bytes.
impl<const N: usize> From<&[u8; N]> for BytePattern {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl FromStr for BytePattern {
    type Err = BytePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = Vec::new();
        // The half of a byte whose other half has not been read yet.
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

/// Two characters a byte: the text that reads as this pattern.
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

/// A character that is no part of a [`BytePattern`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{character:?} at byte {position} is neither a hexadecimal digit nor `x`")]
pub struct BytePatternError {
    position: usize,
    character: char,
}
