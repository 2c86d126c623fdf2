//! Lists and then watches the objects of one kind.
//!
//! A watch that ends is started again at the same version. If the server refuses that version, or sends
//! something that is no event, everything is listed again; also after several watches in a row without any
//! event, which count as an outage; one that is followed by a refusal does not count. After each failure
//! there is a pause.

use std::mem;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, stream};
use kube::api::WatchParams;
use kube::core::{Request, Status};
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::health::WatchHealth;
use super::lines::LineReader;
use super::request::{Backoff, WATCH_SECONDS};
use crate::control::objects::{Extent, ObjectText, Pages, field, open};

/// A watch that has been on for so long has not ended for a fault of its own: between it and the
/// server there may be somebody who ends what is quiet.
const BRIEF: Duration = Duration::from_secs(10);
/// So many watches in a row without a word, and it is doubtful that the next one will bring any.
const MOST_FRUITLESS: u32 = 3;
/// The codes of answers that say nothing of the place where a watch is to go on: the server is busy,
/// or away.
const LATER: [u16; 2] = [429, 503];

/// An event of a list and watch.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// Everything is listed from here on.
    Init,
    /// An object that is listed.
    InitApply(ObjectText),
    /// Everything has been listed: what was not among it is gone.
    InitDone,
    /// An object is new or different.
    Apply(ObjectText),
    /// An object is gone.
    Delete(ObjectText),
}

impl WatchEvent {
    /// The event with the name and the version of its object alone.
    fn reduce(self) -> Self {
        match self {
            WatchEvent::Apply(object) => WatchEvent::Apply(object.reduce()),
            WatchEvent::Delete(object) => WatchEvent::Delete(object.reduce()),
            // Those of lists are reduced already.
            event => event,
        }
    }
}

/// Why a list or a watch has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchFailure {
    /// A list was refused or broke off.
    #[error("cannot list: {0}")]
    List(#[source] Error),
    /// A list came without its version.
    #[error("the list has no resourceVersion")]
    NoVersion,
    /// A watch could not be begun.
    #[error("cannot begin to watch: {0}")]
    Watch(#[source] Error),
    /// A watch broke off.
    #[error("a watch has broken off: {0}")]
    Broken(#[source] Error),
    /// The server ended a watch.
    #[error("the server has ended a watch: {0}")]
    Ended(#[source] Box<Status>),
    /// A watch brought something else than an event.
    #[error("a watch has brought what is no event")]
    NoEvent,
    /// A watch ended soon after it had begun.
    #[error("a watch has ended at once")]
    Brief,
    /// A watch neither brought anything nor ended when it should have.
    #[error("a watch has fallen silent")]
    Silent,
    /// Several watches in a row ended in such ways and brought nothing.
    #[error("{MOST_FRUITLESS} watches in a row have brought nothing; of the last: {0}")]
    Fruitless(#[source] Box<WatchFailure>),
}

/// An endless stream of events and failures.
pub(super) type WatchEvents = Pin<Box<dyn Stream<Item = Result<WatchEvent, WatchFailure>> + Send>>;

/// Lists and watches what is at a path, such as `/api/v1/services`.
pub(super) fn events(
    client: Client,
    path: String,
    extent: Extent,
    health: WatchHealth,
) -> WatchEvents {
    let state = ListWatch {
        client,
        path,
        extent,
        backoff: Backoff::new(health.clone()),
        health,
        state: WatchPhase::Start,
        has_failed: false,
        fruitless: 0,
        unexplained: false,
    };
    Box::pin(stream::unfold(state, |mut state| async {
        let event = state.next().await;
        Some((event, state))
    }))
}

struct ListWatch {
    client: Client,
    path: String,
    extent: Extent,
    backoff: Backoff,
    health: WatchHealth,
    state: WatchPhase,
    has_failed: bool,
    /// How many watches in a row have brought nothing, and nothing explains why.
    fruitless: u32,
    /// Whether the last watch counts among them, and nothing has been refused since.
    unexplained: bool,
}

enum WatchPhase {
    Start,
    Listing(Box<Pages>),
    /// Everything up to this version is known.
    Listed(String),
    Watching(Box<Watch>),
}

/// What is watched.
#[derive(Clone, Copy)]
struct WatchRequest<'p> {
    path: &'p str,
    extent: Extent,
}

/// A watch that is on.
struct Watch {
    /// What is known so far.
    version: String,
    extent: Extent,
    lines: LineReader,
    since: Instant,
    /// Whether it has brought anything.
    fruitful: bool,
}

impl ListWatch {
    async fn next(&mut self) -> Result<WatchEvent, WatchFailure> {
        if mem::take(&mut self.has_failed) {
            sleep(self.backoff.next().unwrap_or_default()).await;
        }
        let event = self.step().await;
        self.has_failed = event.is_err();
        event
    }

    async fn step(&mut self) -> Result<WatchEvent, WatchFailure> {
        loop {
            match &mut self.state {
                WatchPhase::Start => {
                    let pages = Pages::new(self.client.clone(), &self.path, self.extent);
                    self.state = WatchPhase::Listing(Box::new(pages));
                    return Ok(WatchEvent::Init);
                }
                WatchPhase::Listing(pages) => {
                    let next = pages.next().await;
                    let version = pages.take_version();
                    return self.listed(next, version);
                }
                WatchPhase::Listed(version) => {
                    let request = WatchRequest { path: &self.path, extent: self.extent };
                    let watch = Watch::begin(&self.client, request, version).await;
                    self.begun(watch)?;
                }
                WatchPhase::Watching(watch) => match watch.next(&self.health).await {
                    Ok(Some(event)) => return Ok(event),
                    end => {
                        if let Some(failure) = self.end(end.err()) {
                            return Err(failure);
                        }
                    }
                },
            }
        }
    }

    /// Handles the next object of a list, or its end with this version.
    fn listed(
        &mut self,
        next: Result<Option<ObjectText>, Error>,
        version: Option<String>,
    ) -> Result<WatchEvent, WatchFailure> {
        match next {
            Ok(Some(object)) => Ok(WatchEvent::InitApply(object)),
            Ok(None) => {
                self.state = WatchPhase::Start;
                self.state = WatchPhase::Listed(version.ok_or(WatchFailure::NoVersion)?);
                Ok(WatchEvent::InitDone)
            }
            Err(error) => {
                self.refused();
                self.state = WatchPhase::Start;
                Err(WatchFailure::List(error))
            }
        }
    }

    /// Handles the start of a watch.
    fn begun(&mut self, watch: Result<Watch, WatchFailure>) -> Result<(), WatchFailure> {
        match watch {
            Ok(watch) => {
                self.state = WatchPhase::Watching(Box::new(watch));
                Ok(())
            }
            Err(failure) => {
                self.refused();
                if failure.wants_a_list() {
                    self.state = WatchPhase::Start;
                }
                Err(failure)
            }
        }
    }

    /// Notes an outage that shows. It explains why the watch before it has ended, and no watch before
    /// that: a server may refuse now and then, and end whatever it does not refuse.
    fn refused(&mut self) {
        let explained = u32::from(mem::take(&mut self.unexplained));
        self.fruitless = self.fruitless.saturating_sub(explained);
    }

    /// Decides how to go on after a watch, and returns what it has failed for.
    fn end(&mut self, failure: Option<WatchFailure>) -> Option<WatchFailure> {
        let WatchPhase::Watching(watch) = mem::replace(&mut self.state, WatchPhase::Start) else {
            return failure;
        };
        let is_brief = watch.since.elapsed() < BRIEF;
        let failure = failure.or((is_brief && !watch.fruitful).then_some(WatchFailure::Brief));
        let is_cut = matches!(failure, None | Some(WatchFailure::Broken(_)));
        self.unexplained = !watch.fruitful && (is_brief || !is_cut);
        if self.unexplained {
            self.fruitless = self.fruitless.saturating_add(1);
        } else {
            self.fruitless = 0;
            self.health.following();
        }
        if self.fruitless >= MOST_FRUITLESS {
            return failure.map(|failure| WatchFailure::Fruitless(Box::new(failure)));
        }
        if !failure.as_ref().is_some_and(WatchFailure::wants_a_list) {
            self.state = WatchPhase::Listed(watch.version);
        }
        failure
    }
}

impl WatchFailure {
    /// The code with which the server has refused a list or a watch.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            WatchFailure::List(Error::Api(status)) | WatchFailure::Watch(Error::Api(status)) => {
                Some(status.code)
            }
            _ => None,
        }
    }

    /// Whether a watch that was on is over, which is no outage.
    pub(super) fn is_end_of_watch(&self) -> bool {
        !matches!(
            self,
            WatchFailure::List(_)
                | WatchFailure::NoVersion
                | WatchFailure::Watch(_)
                | WatchFailure::Fruitless(_)
        )
    }

    /// Whether a watch that has ended like that, or was refused, cannot go on where it was, as far as
    /// is known: the server may have forgotten that place, or not know it yet.
    fn wants_a_list(&self) -> bool {
        match self {
            WatchFailure::Ended(status) => !LATER.contains(&status.code),
            WatchFailure::Watch(Error::Api(status)) => !LATER.contains(&status.code),
            failure => matches!(failure, WatchFailure::NoEvent),
        }
    }
}

impl Watch {
    async fn begin(
        client: &Client,
        WatchRequest { path, extent }: WatchRequest<'_>,
        version: &mut String,
    ) -> Result<Self, WatchFailure> {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let request = match extent {
            Extent::Whole => Request::new(path).watch(&params, version),
            Extent::Metadata => Request::new(path).watch_metadata(&params, version),
        };
        let answer = match request.map_err(Error::BuildRequest) {
            Ok(request) => open(client, request).await,
            Err(error) => Err(error),
        };
        let body = answer.map_err(WatchFailure::Watch)?.into_body();
        Ok(Watch {
            version: mem::take(version),
            extent,
            lines: LineReader::new(body),
            since: Instant::now(),
            fruitful: false,
        })
    }

    /// The next event; nothing when it is over. The health learns of the first sign of life.
    async fn next(&mut self, health: &WatchHealth) -> Result<Option<WatchEvent>, WatchFailure> {
        while let Some(line) = self.lines.next().await? {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let mut event = take(&line, &mut self.version);
            if self.extent == Extent::Metadata {
                event = event.map(|event| event.map(WatchEvent::reduce));
            }
            let event = event?;
            if !mem::replace(&mut self.fruitful, true) {
                health.following();
            }
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }
}

/// Takes a line of a watch, and notes the version that is known from then on. A bookmark has nothing
/// else to tell.
///
/// An object whose version cannot be read leaves that as it was: then a watch that is begun anew
/// brings the object once more.
fn take(line: &[u8], version: &mut String) -> Result<Option<WatchEvent>, WatchFailure> {
    let kind = field(line, "type").and_then(read::<String>);
    let Some(object) = field(line, "object") else { return Err(WatchFailure::NoEvent) };
    let known = field(object, "metadata").and_then(|metadata| field(metadata, "resourceVersion"));
    let known = known.and_then(read::<String>).filter(|known| !known.is_empty());
    let event = match kind.as_deref() {
        Some("ADDED" | "MODIFIED") => Some(WatchEvent::Apply(ObjectText::new(object))),
        Some("DELETED") => Some(WatchEvent::Delete(ObjectText::new(object))),
        Some("BOOKMARK") => None,
        Some("ERROR") => {
            let status: Status = read(object).unwrap_or_default();
            return Err(WatchFailure::Ended(status.boxed()));
        }
        _ => return Err(WatchFailure::NoEvent),
    };
    if let Some(known) = known {
        *version = known;
    }
    Ok(event)
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}
