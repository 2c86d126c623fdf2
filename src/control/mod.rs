//! The control plane: manifests in, a routing table and statuses out.
//!
//! A source ([`files`], [`kubernetes`]) tells a [`translate::Builder`] what there is; that works out,
//! without I/O, what a change comes to. The routes and endpoints go to the data plane through
//! [`crate::routing::TableWriter`], and the statuses to whoever reports them. What is served outlives
//! the process in [`saved`].

pub mod api;
pub mod checks;
mod debounce;
pub mod dns;
pub mod files;
mod fnv;
pub mod kubernetes;
pub mod lease;
#[cfg(test)]
pub(crate) mod log_capture;
pub mod objects;
mod random;
pub mod saved;
mod slices;
pub mod status;
pub mod supervise;
pub mod task_stream;
pub mod tickets;
mod token_bucket;
pub mod translate;
mod turns;

/// Warns of the installation's own Services that are not there when all that is there has come.
fn warn_of_missing_services(builder: &translate::Builder) {
    for service in builder.missing_own_services() {
        tracing::warn!(
            %service,
            "ownServices names a Service that is not there; a route that leads to sluice by its \
             addresses is not refused"
        );
    }
}
