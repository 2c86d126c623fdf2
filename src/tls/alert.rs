//! TLS alerts for refused clients.

const ALERT_RECORD: u8 = 21;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// The alerts (RFC 8446 §6) that can be sent without keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AlertDescription {
    /// The connection ends without an error.
    CloseNotify = 0,
    /// An unexpected message was received.
    UnexpectedMessage = 10,
    /// A record was too long.
    RecordOverflow = 22,
    /// The handshake cannot be completed.
    HandshakeFailure = 40,
    /// A field has an invalid value.
    IllegalParameter = 47,
    /// The client is not allowed to connect.
    AccessDenied = 49,
    /// A message cannot be parsed.
    DecodeError = 50,
    /// The protocol version is not supported.
    ProtocolVersion = 70,
    /// An internal error, unrelated to the client.
    InternalError = 80,
    /// The handshake is cancelled for a reason outside the protocol.
    UserCanceled = 90,
    /// A required extension is missing.
    MissingExtension = 109,
    /// There is no server with this name.
    UnrecognizedName = 112,
    /// None of the offered protocols is supported.
    NoApplicationProtocol = 120,
}

/// The record of an alert that closes a connection.
///
/// It must be the first record that the client receives, because later records would have to be encrypted.
pub const fn alert(description: AlertDescription) -> [u8; 7] {
    // All others are fatal, whatever their level (RFC 8446 §6).
    let level = match description {
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => WARNING,
        _ => FATAL,
    };
    // Version 3.3, which all versions of TLS accept before the version is negotiated (RFC 8446 §5.1).
    [ALERT_RECORD, 3, 3, 0, 2, level, description as u8]
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_a_record_that_other_parsers_read() {
        use tls_parser::{TlsAlertDescription, TlsAlertSeverity, TlsMessage, parse_tls_plaintext};
        for (description, severity, code) in [
            (
                AlertDescription::UnrecognizedName,
                TlsAlertSeverity::Fatal,
                TlsAlertDescription::UnrecognizedName,
            ),
            (
                AlertDescription::CloseNotify,
                TlsAlertSeverity::Warning,
                TlsAlertDescription::CloseNotify,
            ),
        ] {
            let bytes = alert(description);
            let (rest, record) = parse_tls_plaintext(&bytes).expect("a record");
            assert!(rest.is_empty());
            match &record.msg[..] {
                [TlsMessage::Alert(alert)] => {
                    assert_eq!((alert.severity, alert.code), (severity, code));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
