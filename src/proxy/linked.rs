//! Lists through the entries of a slab, in which an entry can be moved without a search.

use slab::Slab;

/// An entry that may be in one list.
#[derive(Debug)]
pub(super) struct Linked<T> {
    pub(super) value: T,
    before: Option<usize>,
    after: Option<usize>,
}

/// The ends of a list: keys of the slab.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    pub(super) first: Option<usize>,
    last: Option<usize>,
}

impl<T> Linked<T> {
    /// An entry that is in no list.
    pub(super) fn new(value: T) -> Self {
        Linked { value, before: None, after: None }
    }
}

impl List {
    /// Adds an entry that is in no list.
    pub(super) fn push_back<T>(&mut self, key: usize, entries: &mut Slab<Linked<T>>) {
        let Some(entry) = entries.get_mut(key) else { return };
        let last = self.last.replace(key);
        (entry.before, entry.after) = (last, None);
        match last.and_then(|last| entries.get_mut(last)) {
            Some(last) => last.after = Some(key),
            None => self.first = Some(key),
        }
    }

    /// The same, at the beginning.
    pub(super) fn push_front<T>(&mut self, key: usize, entries: &mut Slab<Linked<T>>) {
        let Some(entry) = entries.get_mut(key) else { return };
        let first = self.first.replace(key);
        (entry.before, entry.after) = (None, first);
        match first.and_then(|first| entries.get_mut(first)) {
            Some(first) => first.before = Some(key),
            None => self.last = Some(key),
        }
    }

    /// Takes one of its entries out.
    pub(super) fn remove<T>(&mut self, key: usize, entries: &mut Slab<Linked<T>>) {
        let Some(Linked { before, after, .. }) = entries.get(key) else { return };
        let (before, after) = (*before, *after);
        match before.and_then(|before| entries.get_mut(before)) {
            Some(before) => before.after = after,
            None => self.first = after,
        }
        match after.and_then(|after| entries.get_mut(after)) {
            Some(after) => after.before = before,
            None => self.last = before,
        }
    }
}
