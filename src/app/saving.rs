//! Saves the table in the background after changes.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::control::saved::{self, SavedIdentity, SavedTable, SavedTableError};
use crate::metrics::Metrics;
use crate::policy::Layers;
use crate::routing::TableReader;

/// The minimum pause between two saves, and the factor by which it is longer than a save took.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_FACTOR: u32 = 20;
/// The maximum delay of the process's end by the last save.
pub(super) const LAST_WITHIN: Duration = Duration::from_secs(5);

/// Saves tables, and reads the saved table of an earlier process. Clones share their state.
#[derive(Clone)]
pub(super) struct Saver(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    identity: SavedIdentity,
    /// The layers of policies, which may be others than when the table was saved.
    layers: Layers,
    table: TableReader,
    metrics: Metrics,
    /// Whether the table has changed since the last save.
    changed: AtomicBool,
    wake: Notify,
    /// The lock for saving, with the error of the last save.
    turn: Mutex<Option<String>>,
}

impl Saver {
    /// A saver for the configured folder, if there is one.
    pub(super) fn new(config: &Config, table: &TableReader, metrics: &Metrics) -> Option<Self> {
        let inner = Inner {
            folder: config.state_dir.clone()?,
            identity: SavedIdentity {
                class: config.class.clone(),
                require_class: config.require_class,
                namespaces: config.namespaces.clone(),
            },
            layers: config.policy_layers(),
            table: table.clone(),
            metrics: metrics.clone(),
            changed: AtomicBool::new(false),
            wake: Notify::new(),
            turn: Mutex::default(),
        };
        Some(Saver(Arc::new(inner)))
    }

    /// Records that the table has changed, and is not a saved one.
    pub(super) fn table_changed(&self) {
        self.0.changed.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }

    /// Saves after changes, for ever. Consecutive changes are saved together.
    pub(super) async fn run(&self) -> Infallible {
        loop {
            self.0.wake.notified().await;
            let start = Instant::now();
            if !self.save().await {
                // Tries again later, even without further changes.
                self.0.wake.notify_one();
            }
            sleep(PAUSE.max(start.elapsed().saturating_mul(PAUSE_FACTOR))).await;
        }
    }

    /// Saves the last changes. Called last.
    pub(super) async fn finish(&self) {
        if timeout(LAST_WITHIN, self.save()).await.is_err() {
            tracing::warn!("the last table is not saved: the disk does not answer");
        }
    }

    /// The saved table. A table that is refused is logged.
    pub(super) async fn saved_table(&self) -> Option<SavedTable> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || inner.load()).await.ok().flatten()
    }

    /// The path of the saved table.
    pub(super) fn path(&self) -> PathBuf {
        saved::path(&self.0.folder)
    }

    /// Saves the table. Returns whether nothing is left to save. Continues in the background if it is
    /// dropped.
    async fn save(&self) -> bool {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || inner.save()).await.unwrap_or(false)
    }
}

impl Inner {
    fn save(&self) -> bool {
        let mut failure = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.changed.swap(false, Ordering::AcqRel) {
            return true;
        }
        let now = Timestamp::now();
        let table = Arc::clone(&self.table.table());
        let file = saved::path(&self.folder);
        match saved::save(&self.folder, &table, &self.identity, now) {
            Ok(()) => {
                self.metrics.table.saved.set(now.as_second());
                if failure.take().is_some() {
                    tracing::info!(file = %file.display(), "the table can be saved again");
                }
                tracing::debug!(file = %file.display(), routes = table.len(), "saved the table");
                true
            }
            Err(error) => {
                self.changed.store(true, Ordering::Release);
                self.metrics.table.save_errors.inc();
                let error = error.to_string();
                if failure.as_ref() != Some(&error) {
                    log_failure(&file, &error);
                }
                *failure = Some(error);
                false
            }
        }
    }

    fn load(&self) -> Option<SavedTable> {
        match saved::load(&self.folder, &self.identity, &self.layers) {
            Ok(None) => None,
            Ok(Some(saved)) => {
                self.metrics.table.saved.set(saved.saved_at.as_second());
                Some(saved)
            }
            Err(refused) => {
                log_refused(&saved::path(&self.folder), &refused);
                None
            }
        }
    }
}

fn log_failure(file: &Path, error: &str) {
    let hint = "trying again; a sluice that starts while the API server is away serves what was \
                saved before";
    tracing::error!(file = %file.display(), error, hint, "cannot save the table");
}

fn log_refused(file: &Path, error: &SavedTableError) {
    let hint = "nothing is served before the API server has been listed; it is replaced then";
    tracing::error!(file = %file.display(), %error, hint, "the saved table is refused");
}
