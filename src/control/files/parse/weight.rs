//! What a document stands for, against what is written in it: an alias stands for all that its
//! anchor names, however often it is given.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// The weight that any document may have, by aliases or without.
const FREE: usize = 1000;
/// How much more a document may weigh for each of its bytes. Without aliases it weighs less than
/// three: a byte of a text, its node, and what an escape sequence adds.
const PER_BYTE: usize = 4;

/// Whether the document, with its aliases resolved, is of a size that follows from its own. What
/// cannot be parsed is: who parses it next says why.
pub(super) fn is_bounded(text: &str) -> bool {
    // Without anchors there are no aliases.
    if !text.contains('&') {
        return true;
    }
    let mut left = Some(FREE + PER_BYTE * text.len());
    let _ = Weigh(&mut left).deserialize(serde_yaml::Deserializer::from_str(text));
    left.is_some()
}

/// Takes one for each node, and one for each byte of its text, from what is left; ends with an
/// error when nothing is.
struct Weigh<'l>(&'l mut Option<usize>);

impl Weigh<'_> {
    fn take<E: Error>(&mut self, weight: usize) -> Result<(), E> {
        *self.0 = self.0.and_then(|left| left.checked_sub(weight));
        self.0.map(|_| ()).ok_or_else(|| E::custom("too heavy"))
    }
}

impl<'de> DeserializeSeed<'de> for Weigh<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigh<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: Error>(mut self, _: bool) -> Result<(), E> {
        self.take(1)
    }

    fn visit_i64<E: Error>(mut self, _: i64) -> Result<(), E> {
        self.take(1)
    }

    fn visit_i128<E: Error>(mut self, _: i128) -> Result<(), E> {
        self.take(1)
    }

    fn visit_u64<E: Error>(mut self, _: u64) -> Result<(), E> {
        self.take(1)
    }

    fn visit_u128<E: Error>(mut self, _: u128) -> Result<(), E> {
        self.take(1)
    }

    fn visit_f64<E: Error>(mut self, _: f64) -> Result<(), E> {
        self.take(1)
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.take(1)
    }

    fn visit_none<E: Error>(mut self) -> Result<(), E> {
        self.take(1)
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.take(text.len().saturating_add(1))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.take(1)?;
        while seq.next_element_seed(Weigh(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.take(1)?;
        while map.next_key_seed(Weigh(&mut *self.0))?.is_some() {
            map.next_value_seed(Weigh(&mut *self.0))?;
        }
        Ok(())
    }

    /// A value with a tag.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<(), A::Error> {
        let (_, value) = data.variant::<IgnoredAny>()?;
        value.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeated(anchor: &str, times: usize) -> String {
        format!("x: &x {anchor}\ny: [{}]\n", vec!["*x"; times].join(", "))
    }

    #[test]
    fn what_is_repeated_by_aliases_counts_each_time() {
        let many = format!("[{}]", vec!["1"; 3000].join(", "));
        let long = "a".repeat(8000);
        for anchor in [many.as_str(), &long, &format!("!tag {many}"), &format!("{{a: {many}}}")] {
            assert!(!is_bounded(&repeated(anchor, 3000)));
            assert!(is_bounded(&repeated(anchor, 2)));
        }
        assert!(is_bounded(&repeated("{connect: 5s, idle: 1h}", 50)), "as people use them");
    }

    #[test]
    fn what_is_written_out_is_never_too_heavy() {
        for piece in ["a: &b", "{a,b,c}", "- \n", "[],", "\"\\P\\P\\P\", ", "? \n", "~, "] {
            for (open, close) in [("", ""), ("[", "]"), ("{", "}"), ("- &a [", "]")] {
                assert!(is_bounded(&format!("{open}{}{close}", piece.repeat(5000))), "{piece:?}");
            }
        }
    }
}
