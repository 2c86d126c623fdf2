//! The answer of a DNS server → what it comes to.

use sluice::control::dns::read_answer;

/// Whatever a server sends, nothing panics, and there are addresses or there is a reason why not.
/// Returns whether there are.
pub(crate) fn check(message: &[u8]) -> bool {
    let Some(answer) = read_answer(message) else { return false };
    assert!(!answer.addresses.is_empty() || answer.fault.is_some());
    assert!(answer.addresses.is_sorted());
    answer.fault.is_none()
}
