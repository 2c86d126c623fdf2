//! Files that are damaged, by accident or on purpose.

use std::path::Path;

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// A file that is cut anywhere, or damaged anywhere, ends in objects or in faults with a line
    /// of the file.
    #[test]
    fn no_content_panics_and_lines_are_in_the_file(
        cut in 0..2000usize,
        damage in proptest::collection::vec((0..2000usize, select_byte()), 0..4),
    ) {
        let whole = format!("{}---\n{}---\n{}", good("a"), service("s", 1), slice("s", "10.0.0.1"));
        let mut bytes = whole.into_bytes();
        for (at, byte) in damage {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        bytes.truncate(cut);
        let lines = 1 + bytes.iter().filter(|&&byte| byte == b'\n').count();
        if let Err(faults) = parse::parse(Path::new("a.yaml"), &bytes, Some(&parse::DataFiles::new())) {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                let in_file = fault.line.is_some_and(|line| (1..=lines).contains(&line));
                prop_assert!(in_file, "{}", fault);
                prop_assert!(!fault.to_string().contains('\n'));
            }
        }
    }
}

fn select_byte() -> impl Strategy<Value = u8> {
    proptest::sample::select(b":-{}[]&*!|>'\"%@`#,?\n\t \0\xffa0".to_vec())
}
