//! Changes that come in bursts, taken together.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use tokio::time::{Instant as TokioInstant, timeout_at};

/// How long nothing has to come for a burst to be over.
const QUIET: Duration = Duration::from_millis(2);
/// How long a burst may delay what came first.
const LONGEST: Duration = Duration::from_millis(50);

/// Waits for an item, and hands it and what follows closely to `take`, until nothing has come for a
/// short while or the first of them has waited long enough. Returns when the first came.
///
/// After the end of the stream it returns at once.
pub(super) async fn take_debounced<S>(stream: &mut S, mut take: impl FnMut(S::Item)) -> Instant
where
    S: Stream + Unpin,
{
    let mut next = stream.next().await;
    let noticed = Instant::now();
    let latest = TokioInstant::now() + LONGEST;
    while let Some(item) = next {
        take(item);
        let now = TokioInstant::now();
        // An item that is there already beats any timeout: a stream that never lets up would go on
        // for ever.
        if now >= latest {
            break;
        }
        next = timeout_at((now + QUIET).min(latest), stream.next()).await.ok().flatten();
    }
    noticed
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::ready;
    use std::pin::Pin;

    use futures::stream;
    use tokio::time::sleep;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Numbers from 0, each so long after the one before.
    fn every(gap: Duration, count: u64) -> Pin<Box<impl Stream<Item = u64>>> {
        Box::pin(stream::iter(0..count).then(move |number| async move {
            sleep(gap).await;
            number
        }))
    }

    /// The next burst, and how long it took from its first item to its end.
    async fn burst<S: Stream + Unpin>(stream: &mut S) -> (Vec<S::Item>, Duration) {
        let (mut items, mut first) = (Vec::new(), None);
        take_debounced(stream, |item| {
            first.get_or_insert_with(TokioInstant::now);
            items.push(item);
        })
        .await;
        (items, first.map(|first| first.elapsed()).unwrap_or_default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_item_waits_only_for_the_quiet() {
        let mut lone = every(10 * MILLISECOND, 3);
        let started = TokioInstant::now();
        for (number, since_start) in [(0, 12), (1, 22)] {
            let (items, took) = burst(&mut lone).await;
            assert_eq!(items, [number]);
            assert_eq!(took.as_millis(), QUIET.as_millis());
            // The tokio clock counts whole milliseconds, and rounds up.
            assert_eq!(started.elapsed().as_millis(), since_start);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_at_once_is_taken_together() {
        let mut many = stream::iter(0..10_000).chain(stream::pending());
        let (items, took) = burst(&mut many).await;
        assert_eq!(items.len(), 10_000);
        assert!(took <= LONGEST, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_is_cut_at_the_bound() {
        let mut steady = every(MILLISECOND, 1000);
        let mut all = Vec::new();
        while all.len() < 900 {
            let (items, took) = burst(&mut steady).await;
            assert!((40..=51).contains(&items.len()), "{}", items.len());
            assert!(took <= LONGEST + MILLISECOND, "{took:?}");
            all.extend(items);
        }
        // None is lost between two bursts.
        assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_stream_that_never_lets_up_is_cut_at_the_bound() {
        let started = Instant::now();
        let in_time = move |_: &()| ready(started.elapsed() < 20 * LONGEST);
        let mut always = stream::repeat(()).take_while(in_time);
        burst(&mut always).await;
        assert!(always.next().await.is_some(), "it went on until the stream was over");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_stream_ends_the_burst() {
        let mut ending = stream::iter([1, 2]);
        assert_eq!(burst(&mut ending).await, (vec![1, 2], Duration::ZERO));
        assert_eq!(burst(&mut ending).await, (vec![], Duration::ZERO));
    }
}
