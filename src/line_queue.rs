//! Lines for an output that may stall, written without ever holding their source up.
//!
//! A queue that is bounded in bytes leads to a thread that alone writes to the output. If the
//! output stalls, the queue fills up and lines are dropped and counted; nothing waits.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;

/// The way to the writing thread. Clones lead to the same; the thread ends with the last of them.
#[derive(Clone, Debug)]
pub struct LineQueue {
    queue: Sender<Item>,
    room: Arc<QueuedBytes>,
    dropped: IntCounter,
}

/// What an operator should know of an output.
#[derive(Debug)]
pub enum OutputProblem<'e> {
    /// It refuses lines, which it did not before.
    Refused(&'e io::Error),
    /// So many lines were dropped since the last report, and there is room again.
    Dropped(u64),
}

#[derive(Debug)]
enum Item {
    Lines(Batch),
    /// Answered once all lines before it are written.
    Flush(SyncSender<()>),
}

#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

/// The bytes that are queued or being written.
#[derive(Debug)]
struct QueuedBytes {
    used: AtomicUsize,
    most: usize,
}

impl LineQueue {
    /// Starts the thread `name` that writes to `output`. At most `most` bytes wait for it.
    /// `dropped` counts the lines that found no room, and those that the output refused; `report`
    /// is called by that thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        name: &str,
        output: impl Write + Send + 'static,
        most: usize,
        dropped: IntCounter,
        report: impl FnMut(OutputProblem<'_>) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, items) = channel();
        let room = Arc::new(QueuedBytes { used: AtomicUsize::new(0), most });
        let mut writer = WriterThread {
            output,
            room: Arc::clone(&room),
            dropped: dropped.clone(),
            reported: dropped.get(),
            refused: false,
            report,
        };
        thread::Builder::new().name(name.into()).spawn(move || writer.run(&items))?;
        Ok(LineQueue { queue, room, dropped })
    }

    /// Hands over `lines` whole lines; drops and counts them when there is no room.
    pub fn push(&self, bytes: Vec<u8>, lines: u64) {
        let size = bytes.len();
        let taken = self.room.take(size);
        if !taken || self.queue.send(Item::Lines(Batch { bytes, lines })).is_err() {
            self.dropped.inc_by(lines);
        }
    }

    /// Counts lines that were lost before they could be handed over.
    pub fn lost(&self, lines: u64) {
        self.dropped.inc_by(lines);
    }

    /// Waits until all lines that were handed over are written. An output that has stalled is given
    /// up after `limit`; returns whether all was written.
    pub fn flush(&self, limit: Duration) -> bool {
        let (written, answer) = sync_channel(1);
        self.queue.send(Item::Flush(written)).is_ok() && answer.recv_timeout(limit).is_ok()
    }
}

impl QueuedBytes {
    fn take(&self, size: usize) -> bool {
        let fits = |used: usize| used.checked_add(size).filter(|used| *used <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, size: usize) {
        self.used.fetch_sub(size, Ordering::Relaxed);
    }

    /// Whether a report, which may go through this very queue, surely has room.
    fn is_half_empty(&self) -> bool {
        self.used.load(Ordering::Relaxed) <= self.most / 2
    }
}

/// The thread's side.
struct WriterThread<W, R> {
    output: W,
    room: Arc<QueuedBytes>,
    dropped: IntCounter,
    /// How many dropped lines the reports have had.
    reported: u64,
    /// Whether the output refused the last lines.
    refused: bool,
    report: R,
}

impl<W: Write, R: FnMut(OutputProblem<'_>)> WriterThread<W, R> {
    fn run(&mut self, items: &Receiver<Item>) {
        for item in items {
            match item {
                Item::Lines(batch) => self.write(batch),
                // Fails when the flush was given up.
                Item::Flush(written) => _ = written.try_send(()),
            }
        }
    }

    fn write(&mut self, batch: Batch) {
        let Batch { bytes, lines } = batch;
        let written = self.output.write_all(&bytes).and_then(|()| self.output.flush());
        self.room.give_back(bytes.len());
        drop(bytes);
        match written {
            Ok(()) => {
                self.refused = false;
                self.report_dropped();
            }
            Err(error) => {
                self.dropped.inc_by(lines);
                if !std::mem::replace(&mut self.refused, true) {
                    (self.report)(OutputProblem::Refused(&error));
                }
            }
        }
    }

    fn report_dropped(&mut self) {
        let dropped = self.dropped.get();
        if dropped > self.reported && self.room.is_half_empty() {
            (self.report)(OutputProblem::Dropped(dropped - self.reported));
            self.reported = dropped;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    /// An output that waits for a word before each write, and then takes it or not.
    struct Gate {
        words: Receiver<bool>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.words.recv() {
                Ok(true) | Err(_) => self.written.lock().unwrap().write(bytes),
                Ok(false) => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Fixture {
        queue: LineQueue,
        dropped: IntCounter,
        words: Sender<bool>,
        written: Arc<Mutex<Vec<u8>>>,
        reports: Receiver<String>,
    }

    fn fixture(most: usize) -> Fixture {
        let dropped = IntCounter::new("dropped", "Dropped lines.").unwrap();
        let (words, gate) = channel();
        let (report, reports) = channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let output = Gate { words: gate, written: Arc::clone(&written) };
        let report = move |problem: OutputProblem<'_>| {
            let _ = report.send(match problem {
                OutputProblem::Refused(_) => "refused".to_owned(),
                OutputProblem::Dropped(lines) => format!("dropped {lines}"),
            });
        };
        let queue = LineQueue::start("lines", output, most, dropped.clone(), report).unwrap();
        Fixture { queue, dropped, words, written, reports }
    }

    #[test]
    fn a_stalled_output_holds_nobody_up_and_what_was_dropped_is_reported() {
        let Fixture { queue, dropped, words, written, reports } = fixture(100);
        // Nobody reads: the first ten fill it, and twenty more are dropped at once.
        (0..30).for_each(|number| queue.push(format!("line {number:3}\n\n").into_bytes(), 1));
        assert_eq!(dropped.get(), 20);
        assert!(!queue.flush(Duration::from_millis(20)), "a flush has an end");
        drop(words);
        assert!(queue.flush(SOON));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line   0\n\nline   1\n") && text.ends_with("line   9\n\n"));
        assert_eq!(reports.recv_timeout(SOON).unwrap(), "dropped 20");
        queue.push(b"more\n".to_vec(), 1);
        assert!(queue.flush(SOON));
        drop(queue);
        assert!(reports.recv_timeout(SOON).is_err(), "reported once, and the thread has ended");
    }

    #[test]
    fn a_refusing_output_is_reported_once_and_tried_again() {
        let Fixture { queue, dropped, words, written, reports } = fixture(100);
        for takes in [false, false, true, false, true] {
            words.send(takes).unwrap();
            queue.push(b"two\nlines\n".to_vec(), 2);
            assert!(queue.flush(SOON));
        }
        drop(queue);
        assert_eq!(dropped.get(), 6);
        assert_eq!(*written.lock().unwrap(), b"two\nlines\ntwo\nlines\n");
        let reports: Vec<String> = reports.iter().collect();
        assert_eq!(reports, ["refused", "dropped 4", "refused", "dropped 2"]);
    }

    #[test]
    fn what_is_too_large_for_the_queue_is_dropped() {
        let Fixture { queue, dropped, words, written, .. } = fixture(10);
        drop(words);
        queue.push(vec![b'x'; 11], 3);
        queue.push(b"fits\n".to_vec(), 1);
        assert!(queue.flush(SOON));
        assert_eq!((dropped.get(), written.lock().unwrap().as_slice()), (3, &b"fits\n"[..]));
    }
}
