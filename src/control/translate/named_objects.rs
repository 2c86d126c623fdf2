//! The Secrets and ConfigMaps that the routes of a namespace name, and which of them are too many.

use std::collections::BTreeSet;

use ahash::AHashSet as HashSet;

use super::names::Rank;
use crate::routing::{Kind, ObjectRef};

/// The most Secrets and ConfigMaps that the routes of one namespace may name for TLS.
pub(super) const SECRETS_OF_A_NAMESPACE: usize = 1000;
/// See [`SECRETS_OF_A_NAMESPACE`].
pub(super) const CONFIG_MAPS_OF_A_NAMESPACE: usize = 32;

/// The objects that the routes of a namespace name. Those of the oldest routes come first, and the last ones may be
/// beyond the most of a namespace. A change of one object costs little, however many there are.
#[derive(Debug, Default)]
pub(super) struct NamedObjects {
    secrets: ObjectOrder,
    config_maps: ObjectOrder,
    /// Those beyond the most.
    beyond: HashSet<ObjectRef>,
}

/// The objects of one kind, each after the oldest route that names it.
#[derive(Debug, Default)]
struct ObjectOrder {
    within: BTreeSet<(Rank, ObjectRef)>,
    beyond: BTreeSet<(Rank, ObjectRef)>,
}

impl NamedObjects {
    /// Moves an object from its place `before` to the one that it has `now`; without a place, no route names it.
    /// `crossed` is told of each object that was beyond the most and is not now, or the reverse.
    pub(super) fn move_object(
        &mut self,
        object: &ObjectRef,
        before: Option<Rank>,
        now: Option<Rank>,
        mut crossed: impl FnMut(&ObjectRef),
    ) {
        if before == now {
            return;
        }
        let NamedObjects { secrets, config_maps, beyond } = self;
        let (order, most) = match object.kind {
            Kind::ConfigMap => (config_maps, CONFIG_MAPS_OF_A_NAMESPACE),
            _ => (secrets, SECRETS_OF_A_NAMESPACE),
        };
        if let Some(rank) = before {
            let place = (rank, object.clone());
            if order.beyond.remove(&place) {
                beyond.remove(object);
                crossed(object);
            } else if order.within.remove(&place)
                && let Some(first) = order.beyond.pop_first()
            {
                beyond.remove(&first.1);
                crossed(&first.1);
                order.within.insert(first);
            }
        }
        if let Some(rank) = now {
            order.within.insert((rank, object.clone()));
            if order.within.len() > most
                && let Some(last) = order.within.pop_last()
            {
                beyond.insert(last.1.clone());
                crossed(&last.1);
                order.beyond.insert(last);
            }
        }
    }

    /// Whether an object is beyond the most.
    pub(super) fn is_beyond(&self, object: &ObjectRef) -> bool {
        self.beyond.contains(object)
    }

    /// Whether there are none.
    pub(super) fn is_nothing(&self) -> bool {
        // None is beyond the most unless as many as that are within.
        self.secrets.within.is_empty() && self.config_maps.within.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{ObjectKey, RouteKey};

    #[test]
    fn the_first_ones_are_within_the_most_whatever_comes_and_goes() {
        let mut named = NamedObjects::default();
        let mut model: std::collections::BTreeMap<ObjectRef, Rank> = Default::default();
        let mut crossed = BTreeSet::new();
        let mut random = 7_u64;
        for round in 0..5000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (name, created) = ((random >> 33) % 80, (random >> 45) as i64 % 50);
            let object =
                ObjectRef::new(Kind::ConfigMap, ObjectKey::new("data", &format!("ca{name}")));
            let route = RouteKey::sni_route("data", "r");
            // At last, all of them go.
            let now = (round < 4000 && created > 5).then_some(Rank { created, route });
            let before = model.remove(&object);
            model.extend(now.clone().map(|rank| (object.clone(), rank)));
            named.move_object(&object, before, now, |one| {
                if !crossed.remove(one) {
                    crossed.insert(one.clone());
                }
            });
            let mut order: Vec<_> = model.iter().map(|(object, rank)| (rank, object)).collect();
            order.sort();
            let beyond = order.iter().skip(CONFIG_MAPS_OF_A_NAMESPACE);
            let beyond: HashSet<_> = beyond.map(|(_, object)| (*object).clone()).collect();
            assert_eq!(named.beyond, beyond, "{round}");
            assert_eq!(crossed, beyond.into_iter().collect(), "each is told of");
        }
        assert!(model.is_empty() && named.is_nothing());
    }
}
