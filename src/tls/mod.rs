//! TLS as far as a router needs it: bytes in, a typed ClientHello out. Pure, and nothing is
//! decrypted.
//!
//! [`HelloReader`] takes what a connection has received so far and answers with a [`Progress`]: the
//! [`ClientHello`], the wish for more bytes, or a [`InvalidHello`]. It reassembles a hello that is cut
//! over records and segments in any way, and its answer never depends on where the cuts are.
//!
//! What it holds to, so that a client can neither slip past a route nor cost memory:
//!
//! - Strict where routing reads, indifferent elsewhere: the records, the hello's own fields, the
//!   framing of its extensions and the few extensions that are looked into must be flawless. All
//!   else (cipher suites, the order of extensions, tickets) is between the client and its server.
//! - A name that could not be a DNS name (an address, for one) is like none: no route takes it but
//!   one for any name. Only its length and its place in the hello have to be sound.
//! - Memory follows what was received, never what a length field declares.
//! - The client of an Encrypted ClientHello (RFC 9849) is routed by the outer name.

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
