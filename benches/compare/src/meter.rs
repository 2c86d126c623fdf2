//! What is measured, of the load and of the proxy.

use std::fmt;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::param::clock_ticks_per_second;
use tokio::time::sleep;

use crate::Target;

/// How long a load runs before it is measured.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// What a load has done so far.
#[derive(Default)]
pub(crate) struct Tally {
    done: AtomicU64,
    measured: AtomicBool,
}

impl Tally {
    /// Counts so much more; returns how much it was before.
    pub(crate) fn add(&self, more: u64) -> u64 {
        self.done.fetch_add(more, Ordering::Relaxed)
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Whether what is done now is within the window that is measured.
    pub(crate) fn is_measured(&self) -> bool {
        self.measured.load(Ordering::Relaxed)
    }
}

/// What was done in a while, and what was used for it.
pub(crate) struct Window {
    done: f64,
    seconds: f64,
    /// What the proxy's threads were charged, in seconds.
    cpu: f64,
    /// How long the proxy's core was used, in seconds.
    core: Option<f64>,
}

impl Window {
    /// Lets a load run, and looks at how it counts its `tally` up after `warm_up`.
    pub(crate) async fn of(
        target: &Target,
        warm_up: Duration,
        tally: &Tally,
    ) -> anyhow::Result<Window> {
        sleep(warm_up).await;
        let idle = || target.core.map(idle).transpose();
        let before = (tally.done(), cpu(&target.pids)?, idle()?, Instant::now());
        tally.measured.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs_f64(target.seconds)).await;
        tally.measured.store(false, Ordering::Relaxed);
        let after = (tally.done(), cpu(&target.pids)?, idle()?);
        let seconds = before.3.elapsed().as_secs_f64();
        ensure!(after.0 > before.0, "nothing came through");
        Ok(Window {
            done: (after.0 - before.0) as f64,
            seconds,
            cpu: after.1.saturating_sub(before.1).as_secs_f64(),
            core: after.2.zip(before.2).map(|(after, before)| seconds - (after - before)),
        })
    }

    /// How many a second.
    pub(crate) fn rate(&self) -> f64 {
        self.done / self.seconds
    }

    /// Seconds of CPU for each; `None` where there is no proxy.
    pub(crate) fn cpu_each(&self) -> Option<f64> {
        (self.cpu > 0.0).then(|| self.cpu / self.done)
    }

    /// Seconds of the proxy's core for each; `None` where it has none for itself. The kernel
    /// charges nobody for what it does in interrupts while the core would be idle.
    pub(crate) fn core_each(&self) -> Option<f64> {
        self.core.map(|core| core / self.done)
    }
}

/// Times, to take percentiles of.
#[derive(Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub(crate) fn append(&mut self, mut other: Latencies) {
        self.0.append(&mut other.0);
    }

    /// In microseconds; 0 if there are none.
    pub(crate) fn percentile(&mut self, percent: f64) -> f64 {
        let index = (self.0.len() as f64 * percent / 100.0) as usize;
        match self.0.len() {
            0 => 0.0,
            count => self.0.select_nth_unstable(index.min(count - 1)).1.as_secs_f64() * 1e6,
        }
    }
}

/// The CPU that all threads of these processes have used. `schedstat` counts in nanoseconds, where
/// `stat` has ticks; a thread that ends takes its share with it, which no proxy that is measured
/// for CPU has.
fn cpu(pids: &[u32]) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let schedstat = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += first_number(&schedstat).context("no schedstat in this kernel")?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// How long a core has been idle, or lent by the host to others, in seconds.
fn idle(core: usize) -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")));
    // user, nice, system, idle, iowait, irq, softirq, steal: see proc_stat(5).
    let fields: Vec<f64> = line
        .with_context(|| format!("no core {core} in /proc/stat"))?
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [_, _, _, idle, waiting, _, _, stolen, ..] = fields[..] else {
        bail!("no idle time in /proc/stat")
    };
    Ok((idle + waiting + stolen) / clock_ticks_per_second() as f64)
}

/// The memory of these processes in bytes; of pages that several share, each has its part.
pub(crate) fn memory(pids: &[u32]) -> anyhow::Result<u64> {
    let mut kibibytes = 0;
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        kibibytes += line.and_then(first_number).context("no Pss in smaps_rollup")?;
    }
    Ok(kibibytes * 1024)
}

/// How many descriptors these processes have open.
pub(crate) fn descriptors(pids: &[u32]) -> io::Result<u64> {
    let mut count = 0;
    for pid in pids {
        count += fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
    }
    Ok(count)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// What a load came to: names and numbers, shown as JSON.
#[derive(Default)]
pub(crate) struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    pub(crate) fn with(self, name: &'static str, value: f64) -> Self {
        self.with_some(name, Some(value))
    }

    pub(crate) fn with_some(mut self, name: &'static str, value: Option<f64>) -> Self {
        self.0.extend(value.map(|value| (name, value)));
        self
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> =
            self.0.iter().map(|(name, value)| format!("\"{name}\": {value:.6}")).collect();
        write!(f, "{{ {} }}", fields.join(", "))
    }
}
