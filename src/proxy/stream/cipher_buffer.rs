//! The buffer for ciphertext that all streams of a worker share.

use std::cell::RefCell;
use std::rc::Rc;

use super::engine::LONGEST_RECORD;

/// The plaintext that is encrypted at once.
pub(super) const MOST_PLAINTEXT: usize = 64 * 1024;
/// The bytes that are kept of an incomplete handshake message, besides the next record.
pub(super) const MOST_KEPT: usize = 64 * 1024;
/// Room for all of these: [`MOST_PLAINTEXT`] with the overhead of its records, or [`MOST_KEPT`], a partial record
/// and a read.
const BUFFER: usize = MOST_KEPT + 2 * LONGEST_RECORD;

/// Ciphertext that is received or sent just now.
pub(in crate::proxy) struct CipherBuffer(pub(super) RefCell<Box<[u8]>>);

impl CipherBuffer {
    pub(in crate::proxy) fn new() -> Rc<Self> {
        Rc::new(CipherBuffer(RefCell::new(vec![0; BUFFER].into())))
    }
}
