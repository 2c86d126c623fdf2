//! The keys of session tickets, which replicas may share.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// How long a key encrypts tickets. Tickets are accepted for as long again.
const PERIOD_SECONDS: i64 = 60 * 60;

/// More than the text form of a set has: three keys of 96 digits, their names, and a number.
const TEXT_ROOM: usize = 400;

/// The keys of session tickets. Clones share them. Without a set, there are no tickets.
#[derive(Clone, Default)]
pub struct TicketKeys(Arc<ArcSwapOption<TicketKeySet>>);

/// Three generations of keys. The replicas of an installation read them at different times: the next key is known to
/// all of them before the first one encrypts with it.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeySet {
    /// The keys: the next one, the one that encrypts, and the former one. All of them decrypt.
    keys: [TicketKey; 3],
    /// When the keys have moved last, in seconds since 1970, by the clock of the replica that moved them.
    rotated_at: i64,
}

/// A key of session tickets. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// Its name, which is the beginning of its tickets.
    name: [u8; 16],
    secret: [u8; 32],
}

/// Why a text has no keys of session tickets. Never contains anything of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTicketKeys {
    /// It is not the JSON that sluice writes.
    #[error("it is not what sluice writes there")]
    Format,
    /// A key is not as long as it must be, or no hexadecimal number.
    #[error("it has a key of the wrong form")]
    Key,
}

/// The text form of a set. Wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SetText {
    rotated_at: i64,
    next: String,
    current: String,
    previous: String,
}

impl TicketKeys {
    /// Keys of this process alone.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn local(now: i64) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let keys = TicketKeys::default();
        keys.set(TicketKeySet::new(now)?);
        Ok(keys)
    }

    /// Replaces the keys.
    pub fn set(&self, keys: TicketKeySet) {
        self.0.store(Some(Arc::new(keys)));
    }

    /// The keys, if there are any.
    pub fn get(&self) -> Option<Arc<TicketKeySet>> {
        self.0.load_full()
    }
}

impl TicketKeySet {
    /// How long after it was issued a ticket is accepted at least, in seconds.
    pub const LIFETIME_SECONDS: u32 = PERIOD_SECONDS as u32;

    /// New keys.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new(now: i64) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let keys = [TicketKey::random()?, TicketKey::random()?, TicketKey::random()?];
        Ok(TicketKeySet { keys, rotated_at: now })
    }

    /// Whether the keys are to be moved. A time far in the future is that of a wrong clock.
    pub fn is_due(&self, now: i64) -> bool {
        let age = now.saturating_sub(self.rotated_at);
        !(-PERIOD_SECONDS..PERIOD_SECONDS).contains(&age)
    }

    /// The keys after the next move: the next one encrypts, and a new one is the next.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn rotated(&self, now: i64) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let [next, current, _] = &self.keys;
        let keys = [TicketKey::random()?, next.clone(), current.clone()];
        Ok(TicketKeySet { keys, rotated_at: now })
    }

    /// The key that encrypts.
    pub(super) fn current(&self) -> &TicketKey {
        let [_, current, _] = &self.keys;
        current
    }

    /// All keys.
    pub(super) fn all(&self) -> &[TicketKey; 3] {
        &self.keys
    }

    /// The text form, for a Secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let [next, current, previous] = self.keys.each_ref().map(TicketKey::to_text);
        let text = SetText { rotated_at: self.rotated_at, next, current, previous };
        // With all its room at once: a vector that grows leaves copies behind.
        let mut json = Vec::with_capacity(TEXT_ROOM);
        // A struct of numbers and texts can always be written, and is in UTF-8.
        let _ = serde_json::to_writer(&mut json, &text);
        Zeroizing::new(String::from_utf8(json).unwrap_or_default())
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// When it is no such text.
    pub fn from_text(text: &[u8]) -> Result<Self, InvalidTicketKeys> {
        let text: SetText = serde_json::from_slice(text).map_err(|_| InvalidTicketKeys::Format)?;
        let read = |key: &str| TicketKey::from_text(key).ok_or(InvalidTicketKeys::Key);
        let keys = [read(&text.next)?, read(&text.current)?, read(&text.previous)?];
        Ok(TicketKeySet { keys, rotated_at: text.rotated_at })
    }
}

impl TicketKey {
    fn random() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut key = TicketKey { name: [0; 16], secret: [0; 32] };
        rand::fill(&mut key.name)?;
        rand::fill(&mut key.secret)?;
        Ok(key)
    }

    /// Its name.
    pub(super) fn name(&self) -> &[u8; 16] {
        &self.name
    }

    /// Its secret.
    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    fn to_text(&self) -> String {
        // With all its room at once: a text that grows leaves copies behind.
        let mut text = String::with_capacity(2 * (self.name.len() + self.secret.len()));
        let digits = self.name.iter().chain(&self.secret).flat_map(|byte| [byte >> 4, byte & 15]);
        text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
        text
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut key = TicketKey { name: [0; 16], secret: [0; 32] };
        if text.len() != 2 * (key.name.len() + key.secret.len()) || !text.is_ascii() {
            return None;
        }
        let bytes = key.name.iter_mut().chain(&mut key.secret);
        for (byte, digits) in bytes.zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(key)
    }
}

impl Drop for TicketKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Drop for SetText {
    fn drop(&mut self) {
        for key in [&mut self.next, &mut self.current, &mut self.previous] {
            key.zeroize();
        }
    }
}

/// Two handles are the same if they share their keys.
impl PartialEq for TicketKeys {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TicketKeys {}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TicketKeys").field(&self.0.load().is_some()).finish()
    }
}

impl fmt::Debug for TicketKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeySet").field("rotated_at", &self.rotated_at).finish_non_exhaustive()
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_has_room_and_so_leaves_no_copies() {
        for rotated_at in [0, i64::MIN, i64::MAX] {
            let text = TicketKeySet::new(rotated_at).expect("keys").to_text();
            assert_eq!(text.capacity(), TEXT_ROOM, "{}", text.len());
        }
    }
}
