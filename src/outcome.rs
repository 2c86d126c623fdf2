//! How a connection ended, and the limit that it exceeded.

use std::fmt;

/// How a connection ended. Every connection has exactly one outcome: one metric label, one word in
/// the access log, one TLS alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Both sides closed after all bytes were passed on.
    Completed,
    /// The client went away without a byte: a health check, or a browser that connected ahead.
    NoHello,
    /// A trusted proxy sent no valid PROXY header.
    BadPreamble,
    /// A peer that is not trusted sent a PROXY header.
    UntrustedProxyHeader,
    /// The hello names no server, or what cannot be one, and no route takes connections without a
    /// name.
    NoSni,
    /// The client speaks something else than TLS.
    NotTls,
    /// The hello breaks the rules of TLS.
    MalformedHello,
    /// The hello is longer than the configured maximum.
    HelloTooLarge,
    /// The hello was not whole within its deadline.
    HelloTimeout,
    /// No route takes this name, listener and ALPN.
    NoRoute,
    /// The listener or the route does not admit this client's address.
    AccessDenied,
    /// The route is suspended.
    Suspended,
    /// The route serves TLS, and has no certificate for it, or may not.
    NoCertificate,
    /// The TLS handshake with the client failed, or took too long.
    HandshakeFailed,
    /// The connection came back to sluice: it would go round for ever.
    Loop,
    /// A [`Limit`] was reached.
    LimitExceeded,
    /// None of the route's backends has an endpoint.
    NoEndpoints,
    /// Every endpoint that was tried refused or was unreachable.
    ConnectFailed,
    /// The last endpoint that was tried did not answer within the deadline.
    ConnectTimeout,
    /// No byte went either way for the idle timeout.
    IdleTimeout,
    /// It has lasted as long as its route allows.
    Lifetime,
    /// Its endpoint is gone, and its route closes such connections.
    EndpointRemoved,
    /// The client took too little, for too long, of what there was for it.
    Stalled,
    /// The client reset the connection, or went away in the middle of its hello.
    DownstreamReset,
    /// The endpoint reset the connection.
    UpstreamReset,
    /// sluice itself ended it: it was still open at the end of the drain.
    Drained,
}

impl Outcome {
    /// All outcomes, each at the index that `as usize` gives it.
    pub const ALL: [Outcome; 26] = [
        Outcome::Completed,
        Outcome::NoHello,
        Outcome::BadPreamble,
        Outcome::UntrustedProxyHeader,
        Outcome::NoSni,
        Outcome::NotTls,
        Outcome::MalformedHello,
        Outcome::HelloTooLarge,
        Outcome::HelloTimeout,
        Outcome::NoRoute,
        Outcome::AccessDenied,
        Outcome::Suspended,
        Outcome::NoCertificate,
        Outcome::HandshakeFailed,
        Outcome::Loop,
        Outcome::LimitExceeded,
        Outcome::NoEndpoints,
        Outcome::ConnectFailed,
        Outcome::ConnectTimeout,
        Outcome::IdleTimeout,
        Outcome::Lifetime,
        Outcome::EndpointRemoved,
        Outcome::Stalled,
        Outcome::DownstreamReset,
        Outcome::UpstreamReset,
        Outcome::Drained,
    ];

    /// The metric label and the word in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::NoHello => "no_hello",
            Outcome::BadPreamble => "bad_preamble",
            Outcome::UntrustedProxyHeader => "untrusted_proxy_header",
            Outcome::NoSni => "no_sni",
            Outcome::NotTls => "not_tls",
            Outcome::MalformedHello => "malformed_hello",
            Outcome::HelloTooLarge => "hello_too_large",
            Outcome::HelloTimeout => "hello_timeout",
            Outcome::NoRoute => "no_route",
            Outcome::AccessDenied => "access_denied",
            Outcome::Suspended => "suspended",
            Outcome::NoCertificate => "no_certificate",
            Outcome::HandshakeFailed => "handshake_failed",
            Outcome::Loop => "loop",
            Outcome::LimitExceeded => "limit_exceeded",
            Outcome::NoEndpoints => "no_endpoints",
            Outcome::ConnectFailed => "connect_failed",
            Outcome::ConnectTimeout => "connect_timeout",
            Outcome::IdleTimeout => "idle_timeout",
            Outcome::Lifetime => "lifetime",
            Outcome::EndpointRemoved => "endpoint_removed",
            Outcome::Stalled => "stalled",
            Outcome::DownstreamReset => "downstream_reset",
            Outcome::UpstreamReset => "upstream_reset",
            Outcome::Drained => "drained",
        }
    }

    /// Whether an operator would call it an error (what `--access-log errors` keeps).
    pub fn is_error(self) -> bool {
        !matches!(self, Outcome::Completed | Outcome::NoHello)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A limit on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Limit {
    /// What one source may have.
    Source,
    /// The connections of a route.
    Route,
    /// The connections of a listener.
    Listener,
    /// The new connections of a route or a listener in a time.
    Rate,
    /// The connections of each endpoint of a route.
    Endpoint,
    /// The connections whose hello is not complete.
    Hellos,
    /// The connections whose TLS handshake is not complete.
    Handshakes,
    /// What the process, or the machine, has room for.
    Process,
}

impl Limit {
    /// All limits, each at the index that `as usize` gives it.
    pub const ALL: [Limit; 8] = [
        Limit::Source,
        Limit::Route,
        Limit::Listener,
        Limit::Rate,
        Limit::Endpoint,
        Limit::Hellos,
        Limit::Handshakes,
        Limit::Process,
    ];

    /// The metric label and the word in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Source => "source",
            Limit::Route => "route",
            Limit::Listener => "listener",
            Limit::Rate => "rate",
            Limit::Endpoint => "endpoint",
            Limit::Hellos => "hellos",
            Limit::Handshakes => "handshakes",
            Limit::Process => "process",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_stands_at_its_own_index() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
        }
    }
}
