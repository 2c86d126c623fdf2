//! TLS alerts, for clients that are turned away.

const ALERT_RECORD: u8 = 21;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// The alerts (RFC 8446 §6) that someone without keys has use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AlertDescription {
    /// The connection ends; nothing is wrong.
    CloseNotify = 0,
    /// A message came that has no place here.
    UnexpectedMessage = 10,
    /// A record was too long.
    RecordOverflow = 22,
    /// There is no way to go on.
    HandshakeFailure = 40,
    /// A field has a value that it cannot have.
    IllegalParameter = 47,
    /// The client is known and not admitted.
    AccessDenied = 49,
    /// A message does not parse.
    DecodeError = 50,
    /// The protocol version is not spoken here.
    ProtocolVersion = 70,
    /// Something failed that has nothing to do with the client.
    InternalError = 80,
    /// The handshake is given up for a reason outside the protocol.
    UserCanceled = 90,
    /// An extension that is needed is missing.
    MissingExtension = 109,
    /// No server of that name is here.
    UnrecognizedName = 112,
    /// None of the offered protocols is spoken here.
    NoApplicationProtocol = 120,
}

/// The whole record that tells a client why its connection is closed.
///
/// Only good as the first thing that a client receives: later it would have to be encrypted.
pub const fn alert(description: AlertDescription) -> [u8; 7] {
    // All but these two are fatal whatever the level says (RFC 8446 §6).
    let level = match description {
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => WARNING,
        _ => FATAL,
    };
    // Version 3.3, which every version of TLS takes before one is agreed upon (RFC 8446 §5.1).
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
