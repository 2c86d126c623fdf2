//! The binds of the process, and how they change at run time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::bind::{BindError, BindSpec, PassedSocket, Sockets, bind, listen_again};
use super::listener::{BindId, Listener};
use super::workers::{BindOrder, Workers};
use crate::reach::Listening;

/// All binds.
#[derive(Debug)]
pub(super) struct Binds {
    open: Vec<Bind>,
    /// The number of binds ever made; used for their ids.
    made: u64,
    /// The number of sockets of each bind.
    workers: usize,
    /// Removed binds whose sockets are still open in a worker.
    closing: Vec<Bind>,
    /// Removed binds with passed sockets. Another process keeps these open, so the addresses cannot be bound
    /// again.
    unused: Vec<Bind>,
    /// Binds that were skipped because the machine lacks the address family. Each is logged once.
    skipped: Vec<BindSpec>,
}

/// One address at which clients are accepted.
#[derive(Debug)]
struct Bind {
    id: BindId,
    /// The requested bind.
    spec: BindSpec,
    /// The actual address, with its port.
    address: SocketAddr,
    /// Whether an IPv6 address also accepts IPv4 clients.
    dual: bool,
    /// The sockets until the workers get them. A passed socket is kept.
    sockets: Option<Sockets>,
    /// Whether the workers have their sockets.
    is_handed_out: bool,
    /// Each worker with a socket holds a clone.
    lease: Arc<()>,
}

impl Binds {
    /// An empty set of binds, for this number of workers.
    pub(super) fn new(workers: usize) -> Self {
        Binds {
            open: Vec::new(),
            made: 0,
            workers,
            closing: Vec::new(),
            unused: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Adopts sockets that another process has bound. Returns the binds in `wanted` that are still missing.
    ///
    /// * A socket with the name of a listener belongs to that listener. The sockets of a name replace all
    ///   addresses in `wanted` for it.
    /// * Any other socket belongs to the listener at its address.
    ///
    /// # Errors
    /// When a socket belongs to no listener.
    pub(super) fn adopt(
        &mut self,
        passed: Vec<PassedSocket>,
        mut wanted: Vec<BindSpec>,
    ) -> Result<Vec<BindSpec>, BindError> {
        let mut replaced = Vec::new();
        for PassedSocket { name, described, socket } in passed {
            let no_listener = |error| BindError::NoListener { passed: described.clone(), error };
            let (address, dual) = listen_again(&socket).map_err(no_listener)?;
            let by_name = wanted.iter().find(|spec| Some(&spec.listener.name) == name.as_ref());
            let by_address = || wanted.iter().find(|spec| spec.address == address);
            let Some(spec) = by_name.or_else(by_address) else {
                let mut known: Vec<_> = wanted.iter().map(|spec| &*spec.listener.name).collect();
                known.dedup();
                let (passed, known) = (described, known.join(", "));
                return Err(BindError::Unclaimed { passed, address, known });
            };
            let listener = spec.listener.clone();
            if by_name.is_some() {
                replaced.push(listener.name.clone());
            }
            tracing::info!(listener = listener.name, %address, socket = described, "using a passed socket");
            let spec = BindSpec { address, listener };
            self.add(spec, address, dual, Some(Sockets::Passed(socket)));
        }
        wanted.retain(|spec| {
            let taken = |bind: &Bind| {
                bind.spec.listener.name == spec.listener.name && bind.takes(spec.address)
            };
            !replaced.contains(&spec.listener.name) && !self.open.iter().any(taken)
        });
        Ok(wanted)
    }

    /// Changes the binds to those in `wanted`: closes others, makes missing ones, and keeps the rest.
    /// Returns an error for each bind that cannot be made; another call tries those again.
    ///
    /// An unspecified address (`0.0.0.0`, `[::]`) is skipped if the machine lacks its address family and
    /// the listener has another address.
    pub(super) fn apply(
        &mut self,
        wanted: &[BindSpec],
        workers: Option<&Workers>,
    ) -> Vec<BindError> {
        let (mut missing, mut errors) = without_duplicates(wanted);
        let mut left: Vec<Bind> = std::mem::take(&mut self.open);
        // First an unchanged bind, then one at the same address with another listener.
        for fits in [Bind::is, Bind::is_at] {
            missing.retain(|spec| match left.iter().position(|bind| fits(bind, spec)) {
                Some(place) => {
                    let mut bind = left.swap_remove(place);
                    bind.serve(&spec.listener, workers);
                    self.open.push(bind);
                    false
                }
                None => true,
            });
        }
        left.into_iter().for_each(|bind| self.close(bind, workers));
        let failed: Vec<_> =
            missing.into_iter().filter_map(|spec| Some((spec, self.make(spec).err()?))).collect();
        errors.extend(self.without_missing_families(failed));
        errors.extend(workers.into_iter().flat_map(|workers| self.hand_out(workers)));
        errors
    }

    /// Gives each worker its sockets of new binds. If that fails for a bind, closes it and returns the
    /// error.
    pub(super) fn hand_out(&mut self, workers: &Workers) -> Vec<BindError> {
        let new: Vec<_> = self.open.extract_if(.., |bind| !bind.is_handed_out).collect();
        let mut errors = Vec::new();
        for mut bind in new {
            match bind.hand_out(workers) {
                Ok(()) => self.open.push(bind),
                Err(error) => {
                    let (name, address) = (bind.spec.listener.name.clone(), bind.address);
                    errors.push(BindError::Address { name, address, error });
                    self.close(bind, Some(workers));
                }
            }
        }
        workers.descriptors.set_binds(self.open.len());
        errors
    }

    /// The binds, in the form that [`Binds::apply`] takes.
    pub(super) fn specs(&self) -> impl Iterator<Item = &BindSpec> {
        self.open.iter().map(|bind| &bind.spec)
    }

    /// The listener's name and the address of each bind.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.open.iter().map(|bind| (bind.spec.listener.name.as_str(), bind.address))
    }

    /// The addresses that no route may lead to.
    pub(super) fn listening(&self) -> impl Iterator<Item = Listening> {
        self.open.iter().map(|bind| Listening { address: bind.address, dual_stack: bind.dual })
    }

    /// Whether all sockets were passed to this process, so that they stay open in another process.
    pub(super) fn are_passed(&self) -> bool {
        self.open.iter().all(Bind::is_passed)
    }

    fn make(&mut self, spec: &BindSpec) -> Result<(), BindError> {
        if let Some(place) = self.unused.iter().position(|bind| bind.spec.address == spec.address) {
            let Bind { address, dual, sockets, .. } = self.unused.swap_remove(place);
            self.add(spec.clone(), address, dual, sockets);
            return Ok(());
        }
        self.closing.retain(|bind| Arc::strong_count(&bind.lease) > 1);
        let is_ours = self.closing.iter().any(|bind| bind.address.port() == spec.address.port());
        let bound = bind(spec.address, self.workers, is_ours);
        let (address, sockets) = bound.map_err(|error| {
            let (name, address) = (spec.listener.name.clone(), spec.address);
            BindError::Address { name, address, error }
        })?;
        self.add(spec.clone(), address, false, Some(sockets));
        Ok(())
    }

    fn add(&mut self, spec: BindSpec, address: SocketAddr, dual: bool, sockets: Option<Sockets>) {
        self.made += 1;
        let (id, lease) = (BindId(self.made), Arc::default());
        self.open.push(Bind { id, spec, address, dual, sockets, is_handed_out: false, lease });
    }

    /// Closes a bind. Clients that already wait are still accepted.
    fn close(&mut self, bind: Bind, workers: Option<&Workers>) {
        for handle in workers.into_iter().flat_map(Workers::handles) {
            handle.order(BindOrder::Close(bind.id));
        }
        match bind.is_passed() {
            true => self.unused.push(bind),
            false => self.closing.push(bind),
        }
    }

    /// Removes the binds that are skipped because the machine lacks the address family.
    fn without_missing_families(&mut self, failed: Vec<(&BindSpec, BindError)>) -> Vec<BindError> {
        let is_skipped = |spec: &BindSpec, error: &BindError| {
            let same = |bind: &Bind| {
                (&bind.spec.listener.scope, &bind.spec.listener.name)
                    == (&spec.listener.scope, &spec.listener.name)
            };
            spec.address.ip().is_unspecified()
                && error.is_for_want_of_the_family()
                && self.open.iter().any(same)
        };
        let (skipped, left): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|(spec, error)| is_skipped(spec, error));
        for (spec, _) in &skipped {
            if !self.skipped.contains(spec) {
                let (listener, address) = (&spec.listener.name, spec.address);
                tracing::info!(
                    listener,
                    %address,
                    "not listening there: the machine does not have this address family"
                );
            }
        }
        self.skipped = skipped.into_iter().map(|(spec, _)| spec.clone()).collect();
        left.into_iter().map(|(_, error)| error).collect()
    }
}

/// The first bind for each address, and an error for each further one. Each bind with port 0 gets its own
/// port.
fn without_duplicates(wanted: &[BindSpec]) -> (Vec<&BindSpec>, Vec<BindError>) {
    let mut first: Vec<&BindSpec> = Vec::new();
    let mut errors = Vec::new();
    for spec in wanted {
        let same = first.iter().find(|other| other.address == spec.address);
        match same.filter(|_| spec.address.port() != 0) {
            Some(other) => errors.push(BindError::Twice {
                name: spec.listener.name.clone(),
                address: spec.address,
                other: other.listener.name.clone(),
            }),
            None => first.push(spec),
        }
    }
    (first, errors)
}

impl Bind {
    fn is(&self, spec: &BindSpec) -> bool {
        self.spec == *spec
    }

    /// Whether it has the address of `spec`. With port 0, it must also have the same listener.
    fn is_at(&self, spec: &BindSpec) -> bool {
        let (own, other) = (&self.spec.listener, &spec.listener);
        let same_listener = (&own.scope, &own.name) == (&other.scope, &other.name);
        self.spec.address == spec.address && (spec.address.port() != 0 || same_listener)
    }

    /// Whether its socket stays open in another process.
    fn is_passed(&self) -> bool {
        matches!(self.sockets, Some(Sockets::Passed(_)))
    }

    /// Whether it accepts clients of `address`. A dual-stack socket has two addresses.
    fn takes(&self, address: SocketAddr) -> bool {
        let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.address.port()));
        address == self.address || self.dual && address == ipv4
    }

    /// Changes the listener for new clients.
    fn serve(&mut self, listener: &Listener, workers: Option<&Workers>) {
        if self.spec.listener == *listener {
            return;
        }
        self.spec.listener = listener.clone();
        let Some(workers) = workers else { return };
        let listener = Arc::new(listener.at(self.address, workers.limiter(listener)));
        for handle in workers.handles() {
            let listener = Arc::clone(&listener);
            handle.order(BindOrder::Change { bind: self.id, listener });
        }
    }

    fn hand_out(&mut self, workers: &Workers) -> io::Result<()> {
        let Some(mut sockets) = self.sockets.take() else { return Ok(()) };
        self.is_handed_out = true;
        let limiter = workers.limiter(&self.spec.listener);
        let listener = Arc::new(self.spec.listener.at(self.address, limiter));
        let given = workers.handles().iter().try_for_each(|handle| {
            let Some(socket) = sockets.for_worker()? else { return Ok(()) };
            let (listener, lease) = (Arc::clone(&listener), Arc::clone(&self.lease));
            handle.order(BindOrder::Open { bind: self.id, listener, socket, lease });
            Ok(())
        });
        self.sockets = matches!(sockets, Sockets::Passed(_)).then_some(sockets);
        given
    }
}
