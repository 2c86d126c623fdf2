//! Innocent clients beside an attack: what they may fail at, nothing, and how long they may take.
//!
//! How long is too long depends on the machine, which may be busy with other tests. So a second
//! client does the same without sluice at the same time, and is the measure.
//!
//! It needs nothing but the standard library: tests of other folders take it in by its path.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the server of the innocent answers.
const ANSWER: &[u8] = b"served";
/// How long clients may take: 99 of 100 no longer than this, or ...
const MOST: Duration = Duration::from_millis(20);
/// ... the same of `/livez`, or ...
const MOST_OF_PROBE: Duration = Duration::from_millis(100);
/// ... than so many times what they take without sluice.
const TIMES_CONTROL: u32 = 3;
/// From one client to the next, so that they take little of the CPU.
const EVERY: Duration = Duration::from_millis(4);
const PROBE_EVERY: Duration = Duration::from_millis(10);
/// As many exchanges as fit in this are made at least: with fewer, one that chance holds up would be
/// more than one of 100.
const LEAST: Duration = Duration::from_secs(1);
/// Where clients without sluice take so long, the machine is busy. It is busy as well while more threads want
/// to run than there are processors: a client through sluice needs more of them than one without.
const BUSY: Duration = Duration::from_millis(5);
/// When an exchange has failed, and how long a busy machine is given.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long any machine is given. An attack that holds up more than some of the clients of a second fails all the same.
const SOME_PATIENCE: Duration = Duration::from_secs(4);

/// Held by the test whose attack goes on. Of two attacks at a time, neither would know which one held its clients up.
static ATTACK: Mutex<()> = Mutex::new(());

/// A client that connects through sluice, says its hello, is answered and ends, again and again,
/// until [`Innocent::finish`]; and a second one that does the same without sluice.
pub(crate) struct Innocent {
    through: Client,
    control: Client,
    probe: Option<Client>,
    _alone: MutexGuard<'static, ()>,
}

/// Whether more threads wanted to run in the last minute than there are processors.
fn has_load() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    load > thread::available_parallelism().map_or(1.0, |number| number.get() as f64)
}

impl Innocent {
    /// Begins, once a first client was served. `backend` is a [`backend`], and where sluice leads
    /// clients of `hello` to.
    #[track_caller]
    pub(crate) fn start(sluice: SocketAddr, hello: Vec<u8>, backend: SocketAddr) -> Self {
        let alone = ATTACK.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        while let Err(error) = exchange(sluice, &hello) {
            assert!(begun.elapsed() < PATIENCE, "nobody is served even before: {error}");
            thread::sleep(EVERY);
        }
        let straight = hello.clone();
        Innocent {
            through: Client::start(EVERY, move || exchange(sluice, &hello)),
            control: Client::start(EVERY, move || exchange(backend, &straight)),
            probe: None,
            _alone: alone,
        }
    }

    /// Has `/livez` of an admin port asked as well.
    pub(crate) fn with_probe(mut self, admin: SocketAddr) -> Self {
        self.probe = Some(Client::start(PROBE_EVERY, move || probe(admin)));
        self
    }

    /// The attack is over: no client has failed, and nearly none took long. It is watched on for a moment, and on a
    /// machine that is busy with other things for a while, as chance decides a part of that.
    #[track_caller]
    pub(crate) fn finish(self) {
        let begun = Instant::now();
        let clients = [Some(&self.control), Some(&self.through), self.probe.as_ref()];
        while let Some(client) = clients.iter().flatten().find(|client| !client.has_enough()) {
            assert!(!client.thread.is_finished(), "a client has panicked");
            thread::sleep(EVERY);
        }
        let judged = loop {
            let judged = self.judge();
            let busy = self.control.exchanges().percentile(99) >= BUSY || has_load();
            let patience = if busy { PATIENCE } else { SOME_PATIENCE };
            if judged.is_ok() || begun.elapsed() > patience {
                break judged;
            }
            thread::sleep(PROBE_EVERY);
        };
        for client in [Some(self.through), Some(self.control), self.probe].into_iter().flatten() {
            client.finish();
        }
        if let Err(fault) = judged {
            panic!("{fault}");
        }
    }

    fn judge(&self) -> Result<(), String> {
        let control = self.control.exchanges();
        if let Some(failure) = control.failures.first() {
            return Err(format!("a client without sluice failed as well: {failure:?}"));
        }
        let measure = control.percentile(99) * TIMES_CONTROL;
        drop(control);
        let probe = self.probe.as_ref().map(|probe| ("/livez", probe, MOST_OF_PROBE));
        for (what, client, most) in
            [Some(("client", &self.through, MOST)), probe].into_iter().flatten()
        {
            let exchanges = client.exchanges();
            if !exchanges.failures.is_empty() {
                return Err(format!("the innocent {what} failed: {:?}", exchanges.failures));
            }
            let (took, most) = (exchanges.percentile(99), most.max(measure));
            if took >= most {
                return Err(format!("p99 of the innocent {what}: {took:?}, of at most {most:?}"));
            }
        }
        Ok(())
    }
}

/// The server of an [`Innocent`].
pub(crate) fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let _some = stream.read(&mut [0; 4096])?;
    stream.write_all(ANSWER)?;
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn exchange(address: SocketAddr, hello: &[u8]) -> io::Result<()> {
    let mut stream = patient(address)?;
    stream.write_all(&fresh(hello))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer == ANSWER {
        true => Ok(()),
        false => Err(io::Error::other(format!("{answer:?} in answer"))),
    }
}

/// The same hello with a random of its own, as each client has one (RFC 8446 §4.1.2): it comes
/// after the headers of record and message, and the version.
pub(crate) fn fresh(hello: &[u8]) -> Vec<u8> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut hello = hello.to_vec();
    hello[11..19].copy_from_slice(&number);
    hello
}

fn probe(admin: SocketAddr) -> io::Result<()> {
    let mut stream = patient(admin)?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(io::Error::other(answer)),
    }
}

fn patient(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A thread that does the same again and again.
struct Client {
    stop: Arc<AtomicBool>,
    exchanges: Arc<Mutex<Exchanges>>,
    thread: JoinHandle<()>,
}

impl Client {
    fn start(every: Duration, once: impl Fn() -> io::Result<()> + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let exchanges = Exchanges { every, took: Vec::new(), failures: Vec::new() };
        let exchanges = Arc::new(Mutex::new(exchanges));
        let (told, written) = (Arc::clone(&stop), Arc::clone(&exchanges));
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let result = once();
                let took = begun.elapsed();
                let mut exchanges = written.lock().expect("no panic");
                match result {
                    Ok(()) => exchanges.took.push(took),
                    Err(error) => exchanges.failures.push((took, error.to_string())),
                }
                drop(exchanges);
                thread::sleep(every.saturating_sub(took));
            }
        });
        Client { stop, exchanges, thread }
    }

    fn exchanges(&self) -> MutexGuard<'_, Exchanges> {
        self.exchanges.lock().expect("no panic")
    }

    fn has_enough(&self) -> bool {
        let exchanges = self.exchanges();
        let least = LEAST.as_micros() / exchanges.every.as_micros();
        exchanges.took.len() + exchanges.failures.len() >= least as usize
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
    }
}

/// What became of a client's exchanges.
struct Exchanges {
    every: Duration,
    took: Vec<Duration>,
    failures: Vec<(Duration, String)>,
}

impl Exchanges {
    /// How long so many of a hundred took at most. While one is held up, others do not begin that
    /// would have been held up as well: they count with what was left of the wait.
    fn percentile(&self, percent: usize) -> Duration {
        let held_up = |took: &Duration| {
            let took = *took;
            std::iter::successors(Some(took), |left| left.checked_sub(self.every))
        };
        let mut all: Vec<Duration> = self.took.iter().flat_map(held_up).collect();
        all.sort_unstable();
        let index = (all.len() * percent).div_ceil(100).saturating_sub(1);
        all.get(index).copied().unwrap_or_default()
    }
}

#[test]
fn a_stall_counts_for_all_that_would_have_met_it() {
    let millis = Duration::from_millis;
    let mut exchanges =
        Exchanges { every: EVERY, took: vec![millis(1); 1000], failures: Vec::new() };
    assert_eq!(exchanges.percentile(99), millis(1));
    exchanges.took.push(millis(19));
    assert_eq!(exchanges.percentile(99), millis(1));
    exchanges.took.push(millis(400));
    assert!(exchanges.percentile(99) > millis(300), "{:?}", exchanges.percentile(99));
}
