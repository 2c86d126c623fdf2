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
    /// How many were ever made; gives each its id.
    made: u64,
    /// How many sockets each needs.
    workers: usize,
    /// Addresses that were skipped because the machine lacks their address family.
    left_out: Vec<SocketAddr>,
}

/// One address at which clients are accepted.
#[derive(Debug)]
struct Bind {
    id: BindId,
    /// As requested.
    spec: BindSpec,
    /// With the port that it has.
    address: SocketAddr,
    /// Whether an IPv6 address takes IPv4 clients, too.
    dual: bool,
    /// Whether its socket stays open elsewhere when it is closed here.
    is_passed: bool,
    /// Its sockets, until the workers have them.
    sockets: Option<Sockets>,
}

impl Binds {
    /// No binds yet, of so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Binds { open: Vec::new(), made: 0, workers, left_out: Vec::new() }
    }

    /// Adopts sockets that another process has bound. Returns the binds of `wanted` that are still
    /// missing.
    ///
    /// * A socket that is named like a listener is that listener's, and all of the name take the place
    ///   of the addresses that are wanted for it.
    /// * Any other one is for the listener at its address.
    ///
    /// # Errors
    /// When a socket is for no listener.
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
            tracing::info!(listener = listener.name, %address, socket = described, "was passed on");
            let spec = BindSpec { address, listener };
            self.add(spec, address, dual, Sockets::Passed(socket));
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
    /// Returns an error for each that cannot be made; another call tries those again.
    ///
    /// An unspecified address (`0.0.0.0`, `[::]`) is skipped if the machine lacks its address family and
    /// the listener has another address.
    pub(super) fn apply(
        &mut self,
        wanted: &[BindSpec],
        workers: Option<&Workers>,
    ) -> Vec<BindError> {
        let mut left: Vec<Bind> = std::mem::take(&mut self.open);
        // As it is, or else with another listener. Several may have port 0.
        let is_kept = |bind: &Bind, spec: &BindSpec| bind.spec == *spec;
        let is_changed = |bind: &Bind, spec: &BindSpec| bind.spec.address == spec.address;
        let mut missing: Vec<&BindSpec> = wanted.iter().collect();
        for fits in [is_kept, is_changed] {
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
        left.iter().for_each(|bind| bind.close(workers));
        let errors = missing.into_iter().filter_map(|spec| self.make(spec).err()).collect();
        let mut errors = self.without_missing_families(errors);
        errors.extend(workers.into_iter().flat_map(|workers| self.hand_out(workers)));
        errors
    }

    /// Gives the workers their sockets of new binds. Closes binds for which that fails, and returns the
    /// errors.
    pub(super) fn hand_out(&mut self, workers: &Workers) -> Vec<BindError> {
        let new: Vec<_> = self.open.extract_if(.., |bind| bind.sockets.is_some()).collect();
        let mut errors = Vec::new();
        for mut bind in new {
            match bind.hand_out(workers) {
                Ok(()) => self.open.push(bind),
                Err(error) => {
                    bind.close(Some(workers));
                    let (name, address) = (bind.spec.listener.name, bind.address);
                    errors.push(BindError::Address { name, address, error });
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

    /// The name of the listener and the address of each.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.open.iter().map(|bind| (bind.spec.listener.name.as_str(), bind.address))
    }

    /// The addresses that no route may lead to.
    pub(super) fn listening(&self) -> impl Iterator<Item = Listening> {
        self.open.iter().map(|bind| Listening { address: bind.address, dual_stack: bind.dual })
    }

    /// Whether all sockets were passed on, and so stay open in another process.
    pub(super) fn are_passed(&self) -> bool {
        self.open.iter().all(|bind| bind.is_passed)
    }

    fn make(&mut self, spec: &BindSpec) -> Result<(), BindError> {
        if self.left_out.contains(&spec.address) {
            return Ok(());
        }
        let (address, sockets) = bind(spec.address, self.workers).map_err(|error| {
            let (name, address) = (spec.listener.name.clone(), spec.address);
            BindError::Address { name, address, error }
        })?;
        self.add(spec.clone(), address, false, sockets);
        Ok(())
    }

    fn add(&mut self, spec: BindSpec, address: SocketAddr, dual: bool, sockets: Sockets) {
        self.made += 1;
        let is_passed = matches!(sockets, Sockets::Passed(_));
        let (id, sockets) = (BindId(self.made), Some(sockets));
        self.open.push(Bind { id, spec, address, dual, is_passed, sockets });
    }

    fn without_missing_families(&mut self, errors: Vec<BindError>) -> Vec<BindError> {
        let mut left = Vec::new();
        for error in errors {
            match &error {
                BindError::Address { name, address, .. }
                    if address.ip().is_unspecified()
                        && error.is_for_want_of_the_family()
                        && self.addresses().any(|(other, _)| other == name) =>
                {
                    tracing::info!(
                        listener = name,
                        %address,
                        "not listening there: the machine does not have this address family"
                    );
                    self.left_out.push(*address);
                }
                _ => left.push(error),
            }
        }
        left
    }
}

impl Bind {
    /// Whether it accepts clients of `address`. A dual-stack socket has two addresses.
    fn takes(&self, address: SocketAddr) -> bool {
        let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.address.port()));
        address == self.address || self.dual && address == ipv4
    }

    /// Changes the listener for clients that connect from now on.
    fn serve(&mut self, listener: &Listener, workers: Option<&Workers>) {
        if self.spec.listener == *listener {
            return;
        }
        self.spec.listener = listener.clone();
        let listener = Arc::new(listener.clone());
        for handle in workers.into_iter().flat_map(Workers::handles) {
            let listener = Arc::clone(&listener);
            handle.order(BindOrder::Change { bind: self.id, listener });
        }
    }

    fn hand_out(&mut self, workers: &Workers) -> io::Result<()> {
        let Some(mut sockets) = self.sockets.take() else { return Ok(()) };
        let listener = Arc::new(self.spec.listener.clone());
        for handle in workers.handles() {
            let Some(socket) = sockets.for_worker()? else { break };
            let listener = Arc::clone(&listener);
            handle.order(BindOrder::Open { bind: self.id, listener, socket });
        }
        Ok(())
    }

    /// Closes it. Clients that already wait are still accepted.
    fn close(&self, workers: Option<&Workers>) {
        for handle in workers.into_iter().flat_map(Workers::handles) {
            handle.order(BindOrder::Close(self.id));
        }
    }
}
