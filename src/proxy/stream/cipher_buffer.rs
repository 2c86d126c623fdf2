//! The buffer for ciphertext that all streams of a worker share.

use std::cell::RefCell;
use std::rc::Rc;

use super::layer::BUFFER;

/// Ciphertext that is received or sent just now.
pub(in crate::proxy) struct CipherBuffer(pub(super) RefCell<Box<[u8]>>);

impl CipherBuffer {
    pub(in crate::proxy) fn new() -> Rc<Self> {
        Rc::new(CipherBuffer(RefCell::new(vec![0; BUFFER].into())))
    }
}
