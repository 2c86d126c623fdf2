//! A coarse timer wheel for the deadlines of all tasks of a worker.

/// The width of a slot, which is the precision of deadlines. An item never expires early.
const SLOT_MILLIS: u64 = 32;
/// The number of slots: the wheel spans about 33 s. An item with a later deadline is put into the last slot,
/// and inserted again when that expires, about twice a minute.
const SLOTS: u64 = 1024;
const WORDS: usize = (SLOTS / 64) as usize;

/// A timer wheel: each item expires at its time, in milliseconds.
///
/// Inserting and expiring cost a few instructions, whatever the number of items. Items cannot be removed;
/// the owner ignores those that no longer matter.
pub(super) struct Wheel<T> {
    slots: Box<[Vec<T>]>,
    /// One bit for each slot that is not empty.
    occupied: [u64; WORDS],
    /// The number, counted from time 0, of the first slot that has not expired.
    next: u64,
}

impl<T> Wheel<T> {
    /// An empty wheel whose time begins at 0.
    pub(super) fn new() -> Self {
        Wheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: [0; WORDS], next: 0 }
    }

    /// The expiry time of an item that is inserted for `at` milliseconds: not earlier, unless `at` is beyond
    /// the end of the wheel.
    pub(super) fn due(&self, at: u64) -> u64 {
        at.div_ceil(SLOT_MILLIS).clamp(self.next, self.next + SLOTS - 1) * SLOT_MILLIS
    }

    /// Inserts `item`, and returns its expiry time.
    pub(super) fn insert(&mut self, at: u64, item: T) -> u64 {
        let due = self.due(at);
        let index = due / SLOT_MILLIS % SLOTS;
        self.occupied[(index / 64) as usize] |= 1 << (index % 64);
        if let Some(items) = self.slots.get_mut(index as usize) {
            items.push(item);
        }
        due
    }

    /// Passes every item that has expired at `now` milliseconds to `hand_out`.
    pub(super) fn expire(&mut self, now: u64, mut hand_out: impl FnMut(T)) {
        let end = now / SLOT_MILLIS + 1;
        if end <= self.next {
            return;
        }
        while let Some(slot) = self.first_occupied().filter(|slot| *slot < end) {
            let index = slot % SLOTS;
            self.occupied[(index / 64) as usize] &= !(1 << (index % 64));
            // Taken as a whole, so that the memory of a large slot is freed.
            let items = self.slots.get_mut(index as usize).map(std::mem::take);
            items.into_iter().flatten().for_each(&mut hand_out);
        }
        self.next = end;
    }

    /// The expiry time of the first item in milliseconds; `u64::MAX` means never.
    pub(super) fn next_due(&self) -> u64 {
        self.first_occupied().map_or(u64::MAX, |slot| slot * SLOT_MILLIS)
    }

    /// The number of the first slot that is not empty.
    fn first_occupied(&self) -> Option<u64> {
        let start = self.next % SLOTS;
        let (word, bit) = ((start / 64) as usize, start % 64);
        // The first word is checked twice: first its upper bits, last its lower bits.
        (0..=WORDS).find_map(|step| {
            let index = (word + step) % WORDS;
            let mask = match step {
                0 => u64::MAX << bit,
                WORDS => !(u64::MAX << bit),
                _ => u64::MAX,
            };
            let bits = self.occupied[index] & mask;
            let at = (index as u64) * 64 + u64::from(bits.trailing_zeros());
            (bits != 0).then(|| self.next + (at + SLOTS - start) % SLOTS)
        })
    }
}

#[cfg(test)]
impl<T> Wheel<T> {
    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.slots.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expired(wheel: &mut Wheel<u64>, now: u64) -> Vec<u64> {
        let mut items = Vec::new();
        wheel.expire(now, |item| items.push(item));
        items
    }

    #[test]
    fn an_item_expires_once_and_not_early() {
        let mut wheel = Wheel::new();
        let due = wheel.insert(100, 1);
        assert!((100..100 + SLOT_MILLIS).contains(&due));
        assert_eq!(wheel.next_due(), due);
        assert!(expired(&mut wheel, 99).is_empty());
        assert_eq!(expired(&mut wheel, due), [1]);
        assert!(expired(&mut wheel, due + 1_000_000).is_empty());
        assert_eq!(wheel.next_due(), u64::MAX);
    }

    #[test]
    fn an_item_beyond_the_end_expires_at_the_end() {
        let mut wheel = Wheel::new();
        let due = wheel.insert(3_600_000, 1);
        assert_eq!(due, (SLOTS - 1) * SLOT_MILLIS);
        assert_eq!(expired(&mut wheel, due), [1]);
    }

    #[test]
    fn an_overdue_item_expires_in_the_next_turn() {
        let mut wheel = Wheel::new();
        assert!(expired(&mut wheel, 10_000).is_empty());
        let due = wheel.insert(5, 1);
        assert!(due > 10_000 && due <= 10_000 + SLOT_MILLIS);
        assert_eq!(expired(&mut wheel, due), [1]);
    }

    proptest! {
        #[test]
        fn the_wheel_behaves_like_a_list(
            steps in prop::collection::vec((0u64..5_000, 0u64..40_000), 1..60)
        ) {
            let mut wheel = Wheel::new();
            let mut list: Vec<(u64, u64)> = Vec::new();
            let mut now = 0;
            for (id, (pass, delay)) in steps.into_iter().enumerate() {
                now += pass;
                let mut got = expired(&mut wheel, now);
                let (due, rest): (Vec<_>, Vec<_>) =
                    list.into_iter().partition(|(at, _)| *at <= now);
                list = rest;
                let mut want: Vec<u64> = due.into_iter().map(|(_, id)| id).collect();
                got.sort_unstable();
                want.sort_unstable();
                prop_assert_eq!(got, want);
                let at = wheel.insert(now + delay, id as u64);
                prop_assert!(at + SLOTS * SLOT_MILLIS >= now + delay);
                list.push((at, id as u64));
                let soonest = list.iter().map(|(at, _)| *at).min();
                prop_assert_eq!(wheel.next_due(), soonest.unwrap_or(u64::MAX));
            }
        }
    }
}
