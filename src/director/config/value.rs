//! Values as operators write them.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A length of time: `"500ms"`, `"1s"`, `"5m"`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub(crate) struct HumanDuration(pub(crate) Duration);

impl TryFrom<String> for HumanDuration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(|error| format!("{text:?}: {error}, as in \"500ms\""))
    }
}

/// A length of time, or `"never"`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub(crate) struct DurationOrNever(pub(crate) Option<Duration>);

impl TryFrom<String> for DurationOrNever {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        HumanDuration::try_from(text).map(|HumanDuration(time)| Self(Some(time)))
    }
}

/// What says by itself what is wrong with it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(bound = "T: FromStr<Err: Display>")]
pub(crate) struct FromText<T>(#[serde(deserialize_with = "deserialize_from_str")] pub(crate) T);

fn deserialize_from_str<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
{
    String::deserialize(deserializer)?.parse().map_err(Error::custom)
}

/// Bytes that are not to be shown, in hexadecimal.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub(crate) struct HexSecret(pub(crate) Vec<u8>);

impl TryFrom<String> for HexSecret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        const WRONG: &str = "a key is written in hexadecimal, as by `openssl rand -hex 32`";
        decode_hex(&text).map(Self).ok_or(WRONG)
    }
}

impl fmt::Debug for HexSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A text that is not to be shown.
#[derive(Clone, Deserialize, Eq, PartialEq)]
pub(crate) struct SecretString(pub(crate) String);

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

/// Bytes of their digits.
pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|it| it.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2));
    pairs.map(|pairs| pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

/// Codes: `200`, `"200-299, 404"`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CodeRanges(pub(crate) Vec<RangeInclusive<u16>>);

impl FromStr for CodeRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let code = |text: &str| text.trim().parse::<u16>();
        let range = |part: &str| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            match (code(from), code(to)) {
                (Ok(from), Ok(to)) if from <= to => Ok(from..=to),
                _ => Err(format!("{part:?} is no code and no range, as in \"200-299, 404\"")),
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
                f.write_str("a code, or codes as in \"200-299, 404\"")
            }

            fn visit_i64<E: Error>(self, code: i64) -> Result<CodeRanges, E> {
                let code = u16::try_from(code).map_err(|_| E::custom("no such code"))?;
                Ok(CodeRanges(vec![code..=code]))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<CodeRanges, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(CodeRangesVisitor)
    }
}

/// One, or a list of several.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one, or a list of several")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let one = T::deserialize(serde::de::value::StrDeserializer::new(text))?;
                Ok(OneOrMany(vec![one]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Ok(OneOrMany(vec![T::deserialize(MapAccessDeserializer::new(map))?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(OneOrMany)
            }
        }
        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

/// Changes what there is a word about.
pub(crate) fn apply_if_some<T, V>(whole: T, value: Option<V>, set: impl FnOnce(T, V) -> T) -> T {
    match value {
        Some(value) => set(whole, value),
        None => whole,
    }
}

pub(crate) fn apply_duration_if_some<T>(
    whole: T,
    time: Option<HumanDuration>,
    set: impl FnOnce(T, Duration) -> T,
) -> T {
    apply_if_some(whole, time.map(|HumanDuration(time)| time), set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ranges() {
        let CodeRanges(codes) = "200-299, 404".parse().expect("sound");
        assert_eq!(codes, [200..=299, 404..=404]);
        for wrong in ["", "299-200", "x", "200-", "70000"] {
            assert!(wrong.parse::<CodeRanges>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_have_two_digits_each() {
        assert_eq!(decode_hex("00fF"), Some(vec![0, 255]));
        assert_eq!((decode_hex("0"), decode_hex("0g"), decode_hex("")), (None, None, Some(vec![])));
    }
}
