//! Tests of binaries that have a `main` of their own.

use libtest_mimic::Trial;

/// A test that panics if it fails, with the name that libtest would give it: `module` is what
/// `module_path!()` is where the test stands.
pub fn trial(module: &str, name: &str, test: fn()) -> Trial {
    let module = module.split_once("::").map_or(module, |(_, module)| module);
    Trial::test(format!("{module}::{name}"), move || {
        test();
        Ok(())
    })
}
