//! The parts of TLS that routing needs: parses bytes into a ClientHello. Pure; nothing is decrypted.
//!
//! [`HelloReader`] reads the bytes that a connection has received so far, and returns a [`Progress`]: the
//! [`ClientHello`], a request for more bytes, or an [`InvalidHello`]. It reassembles a hello that is split
//! over records and segments; the result does not depend on the splits.
//!
//! Rules that keep a client from bypassing a route or using much memory:
//!
//! - Strict in everything that routing reads: records, the fields of the hello, the framing of extensions,
//!   and the extensions that routing uses must be valid. Everything else (cipher suites, the order of
//!   extensions, tickets) is left to the client and its server.
//! - A name that cannot be a DNS name, such as an address, is treated like no name: only a route for any
//!   name takes it. Its length and its place in the hello must still be valid.
//! - The memory depends on the received bytes, never on a declared length.
//! - A client with an Encrypted ClientHello (RFC 9849) is routed by the outer name.

mod alert;
mod alpn;
mod hello;
mod invalid_hello;
mod name;
mod reassembly;
mod vector;
mod version;

pub use alert::{AlertDescription, alert};
pub use alpn::Alpn;
pub use hello::ClientHello;
pub use invalid_hello::{InvalidHello, MalformedHello};
pub use name::{InvalidServerName, SentName, ServerName, UnusableName};
pub use reassembly::{HelloReader, Progress};
pub use version::{TlsVersion, Versions};
