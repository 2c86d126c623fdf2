//! A part of the control plane that starts anew when a fault of sluice itself has ended it.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{sleep, timeout};
use tracing::error;

/// The pause before the first new start; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A part that has run for so long counts as mended.
const STEADY: Duration = Duration::from_secs(60);

/// How a part fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supervised {
    /// It has panicked, for this reason, and starts anew after a pause.
    Failed {
        /// Its name.
        part: &'static str,
        /// What the panic said.
        detail: String,
    },
    /// It has run for a minute.
    Steady {
        /// Its name.
        part: &'static str,
    },
}

/// Runs `start` for good. A panic in it is caught and logged; then it is called again, after a pause
/// that grows from 1 s to 60 s. `told` learns of each.
pub async fn supervise<F: Future<Output = Infallible>>(
    part: &'static str,
    told: impl Fn(Supervised),
    start: impl Fn() -> F,
) -> Infallible {
    let mut pause = FIRST_PAUSE;
    loop {
        let panic = {
            let mut run = Box::pin(AssertUnwindSafe(start()).catch_unwind());
            let ended = match timeout(STEADY, run.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => {
                    pause = FIRST_PAUSE;
                    told(Supervised::Steady { part });
                    run.as_mut().await
                }
            };
            // What a panic has left behind may panic again when it is dropped.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(run)));
            match ended {
                Ok(never) => match never {},
                Err(panic) => dropped.err().unwrap_or(panic),
            }
        };
        told(failed(part, &*panic, pause));
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Logs that a part has panicked and starts anew after a pause.
pub fn failed(part: &'static str, panic: &(dyn Any + Send), pause: Duration) -> Supervised {
    let detail = message(panic).to_owned();
    error!(part, detail, ?pause, "a part of the control plane has failed and starts anew");
    Supervised::Failed { part, detail }
}

/// Tells of a part that it is steady, once that is so, and never returns.
pub async fn steady(part: &'static str, told: impl Fn(Supervised)) -> Infallible {
    sleep(STEADY).await;
    told(Supervised::Steady { part });
    std::future::pending().await
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let literal = || panic.downcast_ref::<&str>().copied();
    panic.downcast_ref::<String>().map(String::as_str).or_else(literal).unwrap_or("no message")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_starts_anew_after_pauses_that_grow_until_it_is_steady() {
        let begun = Instant::now();
        let starts = RefCell::new(Vec::new());
        let told = RefCell::new(Vec::new());
        let lives = Cell::new(0);
        let part = || async {
            starts.borrow_mut().push(begun.elapsed().as_secs());
            lives.set(lives.get() + 1);
            match lives.get() {
                4 => sleep(Duration::from_secs(100)).await,
                6 => pending().await,
                _ => {}
            }
            panic!("fault {}", lives.get());
        };
        let supervised = supervise("part", |event| told.borrow_mut().push(event), part);
        let _ = timeout(Duration::from_secs(200), supervised).await;
        // 1, 2 and 4 seconds of pause; after a steady life, one second again.
        assert_eq!(*starts.borrow(), [0, 1, 3, 7, 108, 110]);
        let failed =
            |number| Supervised::Failed { part: "part", detail: format!("fault {number}") };
        let steady = || Supervised::Steady { part: "part" };
        let expected = [failed(1), failed(2), failed(3), steady(), failed(4), failed(5), steady()];
        assert_eq!(*told.borrow(), expected);
    }
}
