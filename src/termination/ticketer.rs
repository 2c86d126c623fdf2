//! Session tickets (RFC 8446 §4.6.1, RFC 5077) of one route.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use super::{TicketKey, TicketKeySet, TicketKeys};

/// The longest ticket that is decrypted. It has the client's certificates.
const LONGEST: usize = 32 << 10;
/// The largest session that a ticket is made of, so that a hello with it is not too large for anybody.
const LARGEST_SESSION: usize = 8 << 10;
/// The length of a key's name, with which a ticket begins.
const NAME: usize = 16;

/// Makes and reads the tickets of one route.
///
/// A ticket is the name of its key, a nonce, and the encrypted session. The key of the encryption is derived from the
/// shared key and the `context` of the route, so that a ticket of another route, or of other rules for client
/// certificates, cannot be decrypted: a full handshake follows.
pub(super) struct Ticketer {
    keys: TicketKeys,
    context: [u8; 32],
    /// The derived keys. They are made anew when the shared ones have changed.
    derived: ArcSwapOption<DerivedKeys>,
}

/// The keys of one route, derived from a set.
struct DerivedKeys {
    of: Arc<TicketKeySet>,
    /// In the order of the set, each with its name.
    keys: [([u8; NAME], RandomizedNonceKey); 3],
}

impl Ticketer {
    pub(super) fn new(keys: &TicketKeys, context: [u8; 32]) -> Self {
        Ticketer { keys: keys.clone(), context, derived: ArcSwapOption::empty() }
    }

    fn derived(&self) -> Option<Arc<DerivedKeys>> {
        let of = self.keys.get()?;
        if let Some(derived) = &*self.derived.load()
            && Arc::ptr_eq(&derived.of, &of)
        {
            return Some(Arc::clone(derived));
        }
        let [next, current, previous] = of.all();
        let derive = |key| Some((*TicketKey::name(key), self.derive(key)?));
        let keys = [derive(next)?, derive(current)?, derive(previous)?];
        let derived = Arc::new(DerivedKeys { of, keys });
        self.derived.store(Some(Arc::clone(&derived)));
        Some(derived)
    }

    fn derive(&self, key: &TicketKey) -> Option<RandomizedNonceKey> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                AES_256_GCM.key_len()
            }
        }
        // The secret is uniformly random, so nothing has to be extracted (RFC 5869 §3.3).
        let secret = Prk::new_less_safe(HKDF_SHA256, key.secret());
        let mut bytes = Zeroizing::new([0; 32]);
        secret
            .expand(&[b"sluice session ticket", &self.context], Length)
            .and_then(|derived| derived.fill(&mut *bytes))
            .ok()?;
        RandomizedNonceKey::new(&AES_256_GCM, &*bytes).ok()
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        self.keys.get().is_some()
    }

    fn lifetime(&self) -> u32 {
        TicketKeySet::LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > LARGEST_SESSION {
            return None;
        }
        let derived = self.derived()?;
        let current = derived.of.current().name();
        let (name, key) = derived.keys.iter().find(|(name, _)| name == current)?;
        let mut session = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        session.extend_from_slice(plain);
        let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut session).ok()?;
        Some([name, nonce.as_ref().as_slice(), &session].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > LONGEST {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, session) = rest.split_first_chunk::<NONCE_LEN>()?;
        let derived = self.derived()?;
        let (_, key) = derived.keys.iter().find(|(own, _)| own == name)?;
        let mut session = session.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(name), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").field("keys", &self.keys).finish_non_exhaustive()
    }
}
