//! Variable-length vectors of the TLS presentation language (RFC 8446 §3.4).

/// Splits off a vector with a one-byte length: its content, and the rest.
pub(super) fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(length.into())
}

/// Splits off a vector with a two-byte length: its content, and the rest.
pub(super) fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// The content of the vector that `split` finds, if it fills `bytes` and is not empty.
pub(super) fn sole<'a>(
    split: impl Fn(&'a [u8]) -> Option<(&'a [u8], &'a [u8])>,
    bytes: &'a [u8],
) -> Option<&'a [u8]> {
    match split(bytes)? {
        (content, []) if !content.is_empty() => Some(content),
        _ => None,
    }
}

/// The 16-bit values in `bytes`; `None` if the length is odd.
pub(super) fn values16(bytes: &[u8]) -> Option<impl Iterator<Item = u16>> {
    let (values, odd) = bytes.as_chunks();
    odd.is_empty().then(|| values.iter().map(|value| u16::from_be_bytes(*value)))
}
