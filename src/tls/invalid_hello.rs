//! Why what a client sent is not a ClientHello that can be routed.

/// Why what a client sent is not a ClientHello that can be routed. Final: no further byte mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHello {
    /// The first bytes are not those of a TLS handshake record: another protocol, or SSLv2.
    #[error("not TLS")]
    NotTls,
    /// It is TLS, and breaks its rules.
    #[error(transparent)]
    Malformed(#[from] MalformedHello),
    /// The hello declares more bytes than are allowed.
    #[error("the hello is longer than allowed")]
    TooLarge,
    /// The records of the hello have more bytes than a hello of the greatest length may take.
    #[error("the hello is cut into too many records")]
    TooManyRecords,
}

/// Which rule a hello breaks. Never says what the client sent, so that it is safe in any log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedHello {
    /// A record's version is none of 3.0 to 3.3.
    #[error("a record has an unknown version")]
    RecordVersion,
    /// A record holds nothing (RFC 8446 §5.1).
    #[error("a record is empty")]
    EmptyRecord,
    /// A record is longer than 2^14 bytes (RFC 8446 §5.1).
    #[error("a record is longer than 2^14 bytes")]
    RecordTooLong,
    /// A record of another type comes before the hello is whole (RFC 8446 §5.1).
    #[error("a record of another type interrupts the hello")]
    ForeignRecord,
    /// The handshake begins with another message.
    #[error("the first handshake message is no ClientHello")]
    NotClientHello,
    /// The record in which the hello ends goes on after it.
    #[error("handshake bytes follow the hello within its record")]
    TrailingHandshake,
    /// The hello ends inside one of its fields.
    #[error("the hello ends inside a field")]
    Truncated,
    /// The session id is longer than 32 bytes.
    #[error("the session id is longer than 32 bytes")]
    SessionId,
    /// The cipher suites are none or of odd length, there is no compression method, or one of the
    /// two lists runs past the end.
    #[error("the list of cipher suites or of compression methods is empty, odd or overlong")]
    AlgorithmLists,
    /// The extensions, or one of them, run past the end.
    #[error("the extensions are cut short")]
    Extensions,
    /// Bytes follow the extensions.
    #[error("bytes follow the extensions")]
    TrailingBytes,
    /// An extension is there twice (RFC 8446 §4.2); its number.
    #[error("extension {0} is there twice")]
    DuplicateExtension(u16),
    /// An extension that is looked into does not follow its format; its number.
    #[error("extension {0} does not follow its format")]
    ExtensionFormat(u16),
    /// A server name of a type other than host_name (RFC 6066 §3).
    #[error("a server name is of an unknown type")]
    ServerNameType,
    /// More than one server name of a type (RFC 6066 §3).
    #[error("there is more than one server name")]
    SeveralServerNames,
}
