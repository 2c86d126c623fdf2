//! The errors of invalid ClientHellos.

/// Why a client's first bytes are not a valid ClientHello. Further bytes cannot change this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHello {
    /// The first bytes are no TLS handshake record: another protocol, or SSLv2.
    #[error("not TLS")]
    NotTls,
    /// It is TLS, but malformed.
    #[error(transparent)]
    Malformed(#[from] MalformedHello),
    /// The hello declares more bytes than are allowed.
    #[error("the hello is longer than allowed")]
    TooLarge,
    /// The records of the hello have more bytes than the largest hello may take.
    #[error("the hello is cut into too many records")]
    TooManyRecords,
}

/// The rule that a hello breaks. It contains no data of the client, so it is safe to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedHello {
    /// A record's version is none of 3.0 to 3.3.
    #[error("a record has an unknown version")]
    RecordVersion,
    /// A record is empty (RFC 8446 §5.1).
    #[error("a record is empty")]
    EmptyRecord,
    /// A record is longer than 2^14 bytes (RFC 8446 §5.1).
    #[error("a record is longer than 2^14 bytes")]
    RecordTooLong,
    /// A record of another type comes before the end of the hello (RFC 8446 §5.1).
    #[error("a record of another type interrupts the hello")]
    ForeignRecord,
    /// The handshake begins with another message.
    #[error("the first handshake message is no ClientHello")]
    NotClientHello,
    /// The last record of the hello contains further bytes.
    #[error("handshake bytes follow the hello within its record")]
    TrailingHandshake,
    /// The hello ends inside one of its fields.
    #[error("the hello ends inside a field")]
    Truncated,
    /// The session id is longer than 32 bytes.
    #[error("the session id is longer than 32 bytes")]
    SessionId,
    /// The list of cipher suites is empty or of odd length, there is no compression method, or one of the
    /// two lists exceeds the hello.
    #[error("the list of cipher suites or of compression methods is empty, odd or overlong")]
    AlgorithmLists,
    /// The extensions, or one of them, exceed the hello.
    #[error("the extensions are cut short")]
    Extensions,
    /// Bytes follow the extensions.
    #[error("bytes follow the extensions")]
    TrailingBytes,
    /// An extension occurs twice (RFC 8446 §4.2); its number.
    #[error("extension {0} is there twice")]
    DuplicateExtension(u16),
    /// An extension that routing uses has an invalid format; its number.
    #[error("extension {0} does not follow its format")]
    ExtensionFormat(u16),
    /// A server name of a type other than host_name (RFC 6066 §3).
    #[error("a server name is of an unknown type")]
    ServerNameType,
    /// More than one server name of a type (RFC 6066 §3).
    #[error("there is more than one server name")]
    SeveralServerNames,
}
