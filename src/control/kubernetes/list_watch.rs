//! One kind of objects, listed and then watched.
//!
//! A watch that ends is begun anew where it was; after the server has forgotten that place, or has
//! sent what is no event, everything is listed again. After each failure there is a pause.

use std::mem;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, stream};
use http_body_util::BodyExt;
use kube::api::WatchParams;
use kube::client::Body;
use kube::core::{Request, Status};
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::request::{Pauses, WATCH_SECONDS};
use crate::control::objects::{ObjectText, Pages, field, open};

/// How long after its end a watch is given up that has brought nothing more.
const MARGIN: Duration = Duration::from_secs(5);
/// The code of an answer that says that the server has forgotten where a watch was.
const GONE: u16 = 410;

/// What a list and watch brings.
#[derive(Debug)]
pub(super) enum Event {
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

/// Why a list or a watch has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
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
}

/// Its events and failures, for good.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<Event, Failure>> + Send>>;

/// Lists and watches what is at a path, such as `/api/v1/services`.
pub(super) fn events(client: Client, path: String, pauses: Pauses) -> Events {
    let state = ListWatch { client, path, pauses, state: State::Start, has_failed: false };
    Box::pin(stream::unfold(state, |mut state| async {
        let event = state.next().await;
        Some((event, state))
    }))
}

struct ListWatch {
    client: Client,
    path: String,
    pauses: Pauses,
    state: State,
    has_failed: bool,
}

enum State {
    Start,
    Listing(Box<Pages>),
    /// It is known as of this version.
    Listed(String),
    Watching(String, Lines),
}

impl ListWatch {
    async fn next(&mut self) -> Result<Event, Failure> {
        if mem::take(&mut self.has_failed) {
            sleep(self.pauses.next().unwrap_or_default()).await;
        }
        let event = self.step().await;
        self.has_failed = event.is_err();
        event
    }

    async fn step(&mut self) -> Result<Event, Failure> {
        loop {
            match &mut self.state {
                State::Start => {
                    let pages = Pages::new(self.client.clone(), &self.path);
                    self.state = State::Listing(Box::new(pages));
                    return Ok(Event::Init);
                }
                State::Listing(pages) => match pages.next().await {
                    Ok(Some(object)) => return Ok(Event::InitApply(object)),
                    Ok(None) => {
                        let version = pages.version().map(str::to_owned);
                        self.state = version.clone().map_or(State::Start, State::Listed);
                        return version.map(|_| Event::InitDone).ok_or(Failure::NoVersion);
                    }
                    Err(error) => {
                        self.state = State::Start;
                        return Err(Failure::List(error));
                    }
                },
                State::Listed(version) => match watch(&self.client, &self.path, version).await {
                    Ok(lines) => self.state = State::Watching(mem::take(version), lines),
                    Err(error) => {
                        if matches!(&error, Error::Api(status) if status.code == GONE) {
                            self.state = State::Start;
                        }
                        return Err(Failure::Watch(error));
                    }
                },
                State::Watching(version, lines) => match lines.next().await {
                    Ok(Some(line)) if line.trim_ascii().is_empty() => {}
                    Ok(Some(line)) => {
                        let event = take(&line, version);
                        if event.as_ref().is_err_and(Failure::wants_a_list) {
                            self.state = State::Start;
                        }
                        if let Some(event) = event.transpose() {
                            return event;
                        }
                    }
                    Ok(None) => self.state = State::Listed(mem::take(version)),
                    Err(error) => {
                        self.state = State::Listed(mem::take(version));
                        return Err(Failure::Broken(error));
                    }
                },
            }
        }
    }
}

impl Failure {
    /// The code with which the server has refused a list or a watch.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Failure::List(Error::Api(status)) | Failure::Watch(Error::Api(status)) => {
                Some(status.code)
            }
            _ => None,
        }
    }

    /// Whether a watch that was on is over, which is no outage.
    pub(super) fn is_end_of_watch(&self) -> bool {
        matches!(self, Failure::Broken(_) | Failure::Ended(_) | Failure::NoEvent)
    }

    /// Whether a watch that has ended like that cannot go on where it was.
    fn wants_a_list(&self) -> bool {
        match self {
            Failure::Ended(status) => status.code == GONE,
            failure => matches!(failure, Failure::NoEvent),
        }
    }
}

async fn watch(client: &Client, path: &str, version: &str) -> Result<Lines, Error> {
    let params = WatchParams::default().timeout(WATCH_SECONDS);
    let request = Request::new(path).watch(&params, version).map_err(Error::BuildRequest)?;
    let body = open(client, request).await?.into_body();
    Ok(Lines { body, buffer: Vec::new(), at: 0 })
}

/// Takes a line of a watch, and notes the version that is known from then on. A bookmark has nothing
/// else to tell.
///
/// An object whose version cannot be read leaves that as it was: then a watch that is begun anew
/// brings the object once more.
fn take(line: &[u8], version: &mut String) -> Result<Option<Event>, Failure> {
    let kind = field(line, "type").and_then(read::<String>);
    let Some(object) = field(line, "object") else { return Err(Failure::NoEvent) };
    let known = field(object, "metadata").and_then(|metadata| field(metadata, "resourceVersion"));
    let known = known.and_then(read::<String>).filter(|known| !known.is_empty());
    let event = match kind.as_deref() {
        Some("ADDED" | "MODIFIED") => Some(Event::Apply(ObjectText::new(object))),
        Some("DELETED") => Some(Event::Delete(ObjectText::new(object))),
        Some("BOOKMARK") => None,
        Some("ERROR") => {
            let status: Status = read(object).unwrap_or_default();
            return Err(Failure::Ended(status.boxed()));
        }
        _ => return Err(Failure::NoEvent),
    };
    if let Some(known) = known {
        *version = known;
    }
    Ok(event)
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

/// The lines of a watch.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Before this there is no end of a line.
    at: usize,
}

impl Lines {
    /// The next line. What comes after the last one is not whole, and is passed over.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let patience = Duration::from_secs(WATCH_SECONDS.into()) + MARGIN;
        // A server that has vanished without a word has ended the watch, too.
        timeout(patience, self.read()).await.unwrap_or(Ok(None))
    }

    async fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.at + length + 1);
                self.at = 0;
                return Ok(Some(mem::replace(&mut self.buffer, rest)));
            }
            self.at = self.buffer.len();
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Some(bytes) = frame?.data_ref() {
                self.buffer.extend_from_slice(bytes);
            }
        }
    }
}
