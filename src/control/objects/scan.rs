//! Finds the start and end of values in JSON text (RFC 8259). Values are not parsed, so none is too deep,
//! too large or of a wrong type. Invalid JSON gives an arbitrary result, in one pass.

/// Finds the end of one value, which may arrive in several pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueScanner {
    depth: usize,
    inside: Inside,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    /// Before the first byte of the value.
    #[default]
    Nothing,
    /// A number, `true`, `false` or `null`.
    Word,
    Text,
    /// In a string, after a backslash.
    Escape,
    /// In an object or array, outside of strings.
    Nest,
}

impl ValueScanner {
    /// Scans the next bytes; the first call must begin with the first byte of the value. Returns how many of
    /// the bytes belong to the value, if it ends here.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            match self.inside {
                Inside::Text => match byte {
                    b'"' if self.depth == 0 => return Some(at + 1),
                    b'"' => self.inside = Inside::Nest,
                    b'\\' => self.inside = Inside::Escape,
                    _ => {}
                },
                Inside::Escape => self.inside = Inside::Text,
                Inside::Nest => match byte {
                    b'"' => self.inside = Inside::Text,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                },
                Inside::Word if is_end(byte) => return Some(at),
                Inside::Word => {}
                Inside::Nothing => match byte {
                    b'"' => self.inside = Inside::Text,
                    b'{' | b'[' => (self.inside, self.depth) = (Inside::Nest, 1),
                    _ if is_end(byte) => return Some(at),
                    _ => self.inside = Inside::Word,
                },
            }
        }
        None
    }

    /// The length of the value at the start of `text`, which is complete.
    fn length(text: &[u8]) -> Option<usize> {
        let mut scanner = ValueScanner::default();
        let end = scanner.advance(text);
        end.or_else(|| (scanner.inside == Inside::Word).then_some(text.len()))
    }
}

/// Whether this byte ends a word.
fn is_end(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b':') || byte.is_ascii_whitespace()
}

/// The fields of an object: the names, with quotes and escapes, and the values.
#[derive(Clone, Debug)]
pub(in crate::control) struct FieldScanner<'t>(&'t [u8]);

impl<'t> FieldScanner<'t> {
    /// The fields of the object in `text`; none if it is another value.
    pub(in crate::control) fn of(text: &'t [u8]) -> Self {
        FieldScanner(text.trim_ascii_start().strip_prefix(b"{").unwrap_or_default())
    }
}

impl<'t> Iterator for FieldScanner<'t> {
    type Item = (&'t [u8], &'t [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_ascii_start();
        let rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
        if !rest.starts_with(b"\"") {
            return None;
        }
        let (name, rest) = rest.split_at_checked(ValueScanner::length(rest)?)?;
        let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let (value, rest) = rest.split_at_checked(ValueScanner::length(rest)?)?;
        self.0 = rest;
        (!value.is_empty()).then_some((name, value))
    }
}

/// The value of an object's field. If the name occurs several times, the last one counts, as in JSON
/// parsers.
pub(in crate::control) fn field<'t>(object: &'t [u8], name: &str) -> Option<&'t [u8]> {
    let is_it = |quoted: &[u8]| match quoted.contains(&b'\\') {
        true => serde_json::from_slice::<String>(quoted).is_ok_and(|quoted| quoted == name),
        false => quoted.get(1..quoted.len() - 1) == Some(name.as_bytes()),
    };
    FieldScanner::of(object).filter(|(quoted, _)| is_it(quoted)).last().map(|(_, value)| value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(value: &Value) -> Vec<u8> {
        value.to_string().into_bytes()
    }

    /// Any JSON value, including strings that could mislead a scanner.
    pub(in crate::control) fn any_json() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
            "[\"\\\\{}\\[\\]:,a-c\u{7f}-\u{ff}\n]{0,6}".prop_map(Value::from),
        ];
        word.prop_recursive(6, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[\"\\\\a-c{]{0,3}", inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_end_of_a_value_does_not_depend_on_the_pieces(
            value in any_json(),
            cut in any::<prop::sample::Index>(),
        ) {
            let value = text(&value);
            let whole = [&value[..], b", 1]"].concat();
            prop_assert_eq!(ValueScanner::length(&whole), Some(value.len()));
            prop_assert_eq!(ValueScanner::length(&value), Some(value.len()));
            let (one, two) = whole.split_at(cut.index(value.len()));
            let mut scanner = ValueScanner::default();
            prop_assert_eq!(scanner.advance(one), None);
            prop_assert_eq!(scanner.advance(two), Some(value.len() - one.len()));
        }

        #[test]
        fn fields_are_the_same_as_a_parsers(value in any_json()) {
            let text = text(&value);
            let fields: Vec<(String, Value)> = FieldScanner::of(&text)
                .map(|(name, value)| {
                    (serde_json::from_slice(name).unwrap(), serde_json::from_slice(value).unwrap())
                })
                .collect();
            let expected: Vec<(String, Value)> = match &value {
                Value::Object(fields) => fields.clone().into_iter().collect(),
                _ => Vec::new(),
            };
            prop_assert_eq!(&fields, &expected);
            for (name, value) in expected {
                let found: Value = serde_json::from_slice(field(&text, &name).unwrap()).unwrap();
                prop_assert_eq!(found, value);
            }
        }

        #[test]
        fn any_text_can_be_scanned(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [b"{\"a\":", &bytes[..]].concat();
            FieldScanner::of(&bytes).for_each(drop);
            field(&bytes, "a");
        }
    }

    #[test]
    fn the_last_of_several_fields_counts_and_names_may_be_escaped() {
        let object = br#" { "a" : 1 , "b":{"a":2}, "\u0061" :[3 ] } "#;
        assert_eq!(field(object, "a"), Some(&b"[3 ]"[..]));
        assert_eq!(field(object, "c"), None);
        let object = br#"{"\\\\":1,"\\":2}"#;
        assert_eq!([r"\\", r"\"].map(|name| field(object, name)), [Some(&b"1"[..]), Some(b"2")]);
        assert_eq!(field(&text(&json!(["a", 1])), "a"), None);
    }
}
