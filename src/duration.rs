//! Durations as people write them: `500ms`, `5s`, `1h30m`.
//!
//! The format is that of Gateway API (GEP-2257), the same in settings and in manifests: one to four
//! numbers of at most five digits, each with its unit `h`, `m`, `s` or `ms`, added up.

use std::fmt;
use std::time::Duration;

const MAX_PARTS: usize = 4;
const MAX_DIGITS: usize = 5;

/// Longest first. `ms` ends in another unit's name, so parsing takes letters as a whole.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a duration; write e.g. 5s, 500ms or 1h30m")]
pub struct InvalidDuration;

/// Reads a duration. Zero (`0s`) is one; whether it makes sense is the caller's question.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let mut rest = text;
    let mut millis: u64 = 0;
    for _ in 0..MAX_PARTS {
        let (part, after) = parse_part(rest).ok_or(InvalidDuration)?;
        millis += part;
        rest = after;
        if rest.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
    }
    Err(InvalidDuration)
}

/// Writes a duration so that [`parse`] reads it back. What is shorter than a millisecond is left
/// out.
pub fn display(duration: Duration) -> impl fmt::Display {
    DurationText(duration)
}

/// One number and its unit in milliseconds, and what follows. At most 99999 h, so no sum of four
/// overflows.
fn parse_part(text: &str) -> Option<(u64, &str)> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (unit, rest) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
    let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    if digits.len() > MAX_DIGITS {
        return None;
    }
    Some((digits.parse::<u64>().ok()? * scale, rest))
}

struct DurationText(Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_millis();
        if left == 0 {
            return f.write_str("0s");
        }
        for (name, scale) in UNITS {
            let count = left / u128::from(scale);
            left %= u128::from(scale);
            if count > 0 {
                write!(f, "{count}{name}")?;
            }
        }
        Ok(())
    }
}

/// A duration that may be missing, as serde's text. For `#[serde(with = "…")]`.
pub mod optional {
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    /// Writes what [`display`](super::display) writes.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.collect_str(&super::display(*duration)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads what [`parse`](super::parse) reads.
    ///
    /// # Errors
    /// When the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let parse = |text: String| {
            super::parse(&text).map_err(|error| D::Error::custom(format!("{text:?} {error}")))
        };
        text.map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [
            ("5s", 5_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1h2m3s4ms", 3_723_004),
            ("90m", 5_400_000),
            ("0s", 0),
            ("007s", 7_000),
            ("99999h99999h99999h99999h", 4 * 99_999 * 3_600_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "5",
            "s",
            "0",
            "5 s",
            " 5s",
            "5s ",
            "5sec",
            "1.5s",
            "-5s",
            "+5s",
            "5S",
            "1d",
            "5us",
            "100000s",
            "1h1m1s1ms1ms",
            "5s5",
            "5µs",
            "٥s",
            "5 parsecs",
            "1e3s",
        ] {
            assert_eq!(parse(text), Err(InvalidDuration), "{text:?}");
        }
    }

    #[test]
    fn writes_the_largest_units_first() {
        for (millis, text) in
            [(0, "0s"), (500, "500ms"), (90_000, "1m30s"), (3_600_000, "1h"), (3_600_001, "1h1ms")]
        {
            assert_eq!(display(Duration::from_millis(millis)).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..100_000 * 3_600_000_u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&display(duration).to_string()), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
