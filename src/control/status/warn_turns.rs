//! What waits to be written. Namespaces take turns, so that a namespace with many affected routes does not delay what
//! is written for others.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

/// Keys with values, in turns by namespace. Each key waits at most once.
#[derive(Debug)]
pub(super) struct WarnTurns<K, V> {
    /// The namespaces with waiting keys, each once.
    ring: VecDeque<Arc<str>>,
    queues: HashMap<Arc<str>, VecDeque<(K, V)>>,
    waiting: HashSet<K>,
}

impl<K, V> Default for WarnTurns<K, V> {
    fn default() -> Self {
        WarnTurns { ring: VecDeque::new(), queues: HashMap::new(), waiting: HashSet::new() }
    }
}

impl<K: Clone + Eq + Hash, V> WarnTurns<K, V> {
    /// Adds a key of a namespace, unless it waits already.
    pub(super) fn push(&mut self, namespace: &str, key: K, value: V) {
        if !self.waiting.insert(key.clone()) {
            return;
        }
        match self.queues.get_mut(namespace) {
            Some(queue) => queue.push_back((key, value)),
            None => {
                let namespace: Arc<str> = namespace.into();
                self.ring.push_back(Arc::clone(&namespace));
                self.queues.insert(namespace, [(key, value)].into());
            }
        }
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<(K, V)> {
        let namespace = self.ring.pop_front()?;
        let queue = self.queues.get_mut(&namespace)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&namespace);
        } else {
            self.ring.push_back(namespace);
        }
        next.inspect(|(key, _)| {
            self.waiting.remove(key);
        })
    }
}
