//! TLS that sluice serves itself, between real TLS clients and plain or TLS servers.

mod alpn;
mod backends;
mod client_certificates;
mod downgrade;
mod handshakes;
mod manifests;
mod resumption;
mod streams;
mod testssl;
mod upstream;
mod versions;
