//! Identities of which equal ones are the same.

use std::sync::{Arc, Weak};

use ahash::{AHashMap as HashMap, RandomState};

use crate::termination::Identity;

/// Identities, each once. None is held here: the last one that uses a key drops it.
#[derive(Debug, Default)]
pub(super) struct SharedIdentities {
    known: HashMap<u64, Weak<Identity>>,
    hasher: RandomState,
    /// The unused ones are removed when there are this many.
    most: usize,
}

impl SharedIdentities {
    /// How many there are at least before the unused ones are removed.
    const FEW: usize = 64;

    /// The one that equals `identity`.
    pub(super) fn shared(&mut self, identity: Arc<Identity>) -> Arc<Identity> {
        let hash = self.hasher.hash_one(&identity);
        let known = self.known.get(&hash).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| *known == identity) {
            return known;
        }
        if self.known.len() >= self.most.max(SharedIdentities::FEW) {
            self.known.retain(|_, known| known.strong_count() > 0);
            self.most = 2 * self.known.len();
        }
        self.known.insert(hash, Arc::downgrade(&identity));
        identity
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn identity(text: &[String; 2]) -> Arc<Identity> {
        Identity::from_pem(text[0].as_bytes(), text[1].as_bytes()).unwrap()
    }

    #[test]
    fn equal_ones_are_the_same_while_they_are_used_and_none_is_held() {
        let pair = || {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key);
            [certificate.unwrap().pem(), key.serialize_pem()]
        };
        let mut identities = SharedIdentities::default();
        let text = pair();
        let one = identities.shared(identity(&text));
        assert!(Arc::ptr_eq(&one, &identities.shared(identity(&text))));
        assert_eq!(Arc::strong_count(&one), 1);
        for _ in 0..2 * SharedIdentities::FEW {
            identities.shared(identity(&pair()));
        }
        assert!(identities.known.len() <= SharedIdentities::FEW + 1);
        assert!(Arc::ptr_eq(&one, &identities.shared(identity(&text))));
    }
}
