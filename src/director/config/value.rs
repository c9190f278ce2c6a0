//! Types of values: durations, secrets, code ranges, lists.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::discovery::address::parse_socket_address;

/// Reads an address with a port, whose IPv6 scope may be the name of an interface.
pub(super) fn deserialize_address<'de, D>(deserializer: D) -> Result<SocketAddr, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    parse_socket_address(&text).ok_or_else(|| D::Error::custom("invalid socket address syntax"))
}

/// As [`deserialize_address`], for a key that may be left out.
pub(super) fn deserialize_some_address<'de, D>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error>
where
    D: Deserializer<'de>,
{
    deserialize_address(deserializer).map(Some)
}

/// A duration: a string of numbers with units, such as `"500ms"`, `"1s"`, `"5m"` or `"1h 30m"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HumanDuration(pub(crate) Duration);

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("{text:?} is not a duration such as \"500ms\": {error}"))
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::new("a duration such as \"500ms\""))
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

/// A duration, or `"never"`.
///
/// # In Rust
/// A [`Duration`], or `None`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DurationOrNever(pub(crate) Option<Duration>);

impl From<Duration> for DurationOrNever {
    fn from(duration: Duration) -> Self {
        Self(Some(duration))
    }
}

impl From<Option<Duration>> for DurationOrNever {
    fn from(duration: Option<Duration>) -> Self {
        Self(duration)
    }
}

impl FromStr for DurationOrNever {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|HumanDuration(duration)| Self(Some(duration)))
            .map_err(|reason: String| format!("{reason}; \"never\" is allowed too"))
    }
}

impl<'de> Deserialize<'de> for DurationOrNever {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a duration such as \"500ms\", or \"never\"";
        deserializer.deserialize_str(TextVisitor::new(expected))
    }
}

/// Parses a string, and names what is expected in the error about a value of another type.
struct TextVisitor<T> {
    expected: &'static str,
    parsed: PhantomData<T>,
}

impl<T> TextVisitor<T> {
    const fn new(expected: &'static str) -> Self {
        Self { expected, parsed: PhantomData }
    }
}

impl<T: FromStr<Err: Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// A string that is parsed by [`FromStr`], whose error is shown as it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(bound = "T: FromStr<Err: Display>")]
pub(crate) struct FromText<T>(#[serde(deserialize_with = "deserialize_from_str")] pub(crate) T);

impl<T> From<T> for FromText<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

fn deserialize_from_str<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
{
    String::deserialize(deserializer)?.parse().map_err(Error::custom)
}

/// Bytes that `Debug` does not show; hexadecimal digits in TOML.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct HexSecret(pub(crate) Vec<u8>);

impl From<Vec<u8>> for HexSecret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for HexSecret {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for HexSecret {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for HexSecret {
    fn from(bytes: &[u8; N]) -> Self {
        Self(bytes.to_vec())
    }
}

impl TryFrom<String> for HexSecret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        // The value is not in the message, because it is a secret.
        const REASON: &str = "the value must be pairs of hexadecimal digits, such as printed by \
            `openssl rand -hex 32`";
        decode_hex(&text).map(Self).ok_or(REASON)
    }
}

impl fmt::Debug for HexSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HexSecret")
    }
}

/// A string that `Debug` does not show.
#[derive(Clone, Deserialize, Eq, PartialEq)]
pub struct SecretString(pub(crate) String);

impl From<String> for SecretString {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl From<&str> for SecretString {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretString")
    }
}

/// Decodes pairs of hexadecimal digits.
pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2));
    pairs.map(|pairs| pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

/// A code such as `200`, or a string of codes and ranges such as `"200-299, 404"`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CodeRanges(pub(crate) Vec<RangeInclusive<u16>>);

impl CodeRanges {
    /// Returns the ranges, if each of them has a code.
    pub(super) fn checked(self) -> Result<Vec<RangeInclusive<u16>>, String> {
        match self.0.iter().find(|range| range.is_empty()) {
            Some(range) => Err(format!("{range:?} is a range without any code")),
            None => Ok(self.0),
        }
    }
}

impl From<u16> for CodeRanges {
    fn from(code: u16) -> Self {
        Self::from(code..=code)
    }
}

impl From<RangeInclusive<u16>> for CodeRanges {
    fn from(range: RangeInclusive<u16>) -> Self {
        Self(vec![range])
    }
}

impl<const N: usize> From<[RangeInclusive<u16>; N]> for CodeRanges {
    fn from(ranges: [RangeInclusive<u16>; N]) -> Self {
        Self(ranges.into())
    }
}

impl From<Vec<RangeInclusive<u16>>> for CodeRanges {
    fn from(ranges: Vec<RangeInclusive<u16>>) -> Self {
        Self(ranges)
    }
}

/// The shortest and the longest length in bytes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub(crate) struct LengthRange(pub(crate) [usize; 2]);

impl From<RangeInclusive<usize>> for LengthRange {
    fn from(lengths: RangeInclusive<usize>) -> Self {
        Self([*lengths.start(), *lengths.end()])
    }
}

/// A table whose keys the user chooses.
pub(crate) type StringTable = BTreeMap<String, String>;

/// The value of a key that has several values.
pub(super) trait ExtendKey<A> {
    fn extend_key(&mut self, values: impl IntoIterator<Item = A>);
}

impl<A: Into<T>, T> ExtendKey<A> for Vec<T> {
    fn extend_key(&mut self, values: impl IntoIterator<Item = A>) {
        self.extend(values.into_iter().map(Into::into));
    }
}

impl<K: Into<String>, V: Into<String>> ExtendKey<(K, V)> for StringTable {
    fn extend_key(&mut self, values: impl IntoIterator<Item = (K, V)>) {
        self.extend(values.into_iter().map(|(key, value)| (key.into(), value.into())));
    }
}

impl FromStr for CodeRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let code = |text: &str| text.trim().parse::<u16>();
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (code(first), code(last)) {
                (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
                _ => Err(format!("{part:?} is not a code or a range, as in \"200-299, 404\"")),
            }
        };
        text.split(',').map(range).collect::<Result<_, _>>().map(Self)
    }
}

impl<'de> Deserialize<'de> for CodeRanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CodeRangesVisitor;
        impl Visitor<'_> for CodeRangesVisitor {
            type Value = CodeRanges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a code, or codes and ranges as in \"200-299, 404\"")
            }

            fn visit_i64<E: Error>(self, code: i64) -> Result<CodeRanges, E> {
                let code = u16::try_from(code)
                    .map_err(|_| E::custom(format!("{code} is not a code from 0 to 65535")))?;
                Ok(CodeRanges(vec![code..=code]))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<CodeRanges, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(CodeRangesVisitor)
    }
}

/// A single value, or a list of values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

impl<T> OneOrMany<T> {
    pub(super) fn push(&mut self, value: T) {
        self.0.push(value);
    }
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table, or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![T::deserialize(StrDeserializer::new(text))?]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Ok(OneOrMany(vec![T::deserialize(MapAccessDeserializer::new(map))?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
            }
        }
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

/// Applies a setter if the value is there.
pub(crate) fn apply_if_some<B, V>(builder: B, value: Option<V>, set: impl FnOnce(B, V) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

/// Applies a setter of a duration if the value is there.
pub(crate) fn apply_duration_if_some<B>(
    builder: B,
    value: Option<HumanDuration>,
    set: impl FnOnce(B, Duration) -> B,
) -> B {
    apply_if_some(builder, value.map(|HumanDuration(duration)| duration), set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_ranges_are_parsed_and_refused() {
        let CodeRanges(codes) = "200-299, 404".parse().expect("valid ranges");
        assert_eq!(codes, [200..=299, 404..=404]);
        for text in ["", "299-200", "x", "200-", "70000"] {
            assert!(text.parse::<CodeRanges>().is_err(), "{text:?} is accepted");
        }
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(decode_hex("00fF"), Some(vec![0, 255]));
        assert_eq!((decode_hex("0"), decode_hex("0g"), decode_hex("")), (None, None, Some(vec![])));
    }
}
