//! A digest of several parts.

use aws_lc_rs::digest::{Context, SHA256};

/// A SHA-256 digest of parts, with the length of each before it.
pub(super) struct Digest(Context);

impl Default for Digest {
    fn default() -> Self {
        Digest(Context::new(&SHA256))
    }
}

impl Digest {
    /// Adds a part.
    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// The digest of all parts.
    pub(super) fn finish(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(self.0.finish().as_ref()).for_each(|(byte, of)| *byte = *of);
        bytes
    }
}
