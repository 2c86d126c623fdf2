//! Work that may take long, in slices: between two of them, the thread does what else there is.

use tokio::task::yield_now;

use super::translate::{Builder, Delta, SLICE};

/// Works out what the changes of a builder come to.
pub(super) async fn settle(builder: &mut Builder) -> Delta {
    let mut computation = builder.begin_delta();
    loop {
        if let Some(delta) = computation.go_on(SLICE) {
            return delta;
        }
        yield_now().await;
    }
}

/// Hands each of many items to `take`, which needs well below a millisecond for one.
pub(super) async fn each<T>(items: impl IntoIterator<Item = T>, mut take: impl FnMut(T)) {
    for (number, item) in items.into_iter().enumerate() {
        if number % 32 == 31 {
            yield_now().await;
        }
        take(item);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::control::api::SniRoute;
    use crate::control::translate::Installation;

    /// Counts the turns that it gets while `work` goes on.
    async fn turns(work: impl Future) -> usize {
        let turns = Cell::new(0);
        let other = async {
            loop {
                yield_now().await;
                turns.set(turns.get() + 1);
            }
        };
        tokio::select! {
            biased;
            _ = work => turns.get(),
            () = other => 0,
        }
    }

    fn route(number: usize) -> SniRoute {
        let hostnames: Vec<String> = (0..64).map(|name| format!("n{name}.test")).collect();
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": format!("r{number}"), "namespace": "ns" },
            "spec": {
                "hostnames": hostnames,
                "alpn": [format!("p{number}")],
                "backends": [{ "address": "192.0.2.1:1" }],
            },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn others_have_their_turn_while_much_is_worked_out() {
        let mut builder = Builder::new(Installation::default());
        (0..200).for_each(|number| builder.put_route(&route(number)));
        // Of 64 names, each is claimed 200 times.
        let many =
            turns(async { assert_eq!(settle(&mut builder).await.statuses.len(), 200) }).await;
        assert!(many >= 64 * 200 / SLICE, "{many}");
        builder.put_route(&route(0));
        let few = turns(settle(&mut builder)).await;
        assert!(few < many, "{few}");
    }

    #[tokio::test]
    async fn others_have_their_turn_while_many_are_taken() {
        let mut taken = Vec::new();
        let many = turns(each(0..1000, |number| taken.push(number))).await;
        assert!(many > 20, "{many}");
        assert_eq!(taken, (0..1000).collect::<Vec<_>>());
    }
}
