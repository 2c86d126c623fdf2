//! The certificate that proxies serve, which they sign themselves.

use std::fs;
use std::path::Path;

use clap::ValueEnum;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};

use crate::backends::SERVERS;

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum KeyKind {
    /// ECDSA with P-256
    P256,
    Rsa2048,
}

/// Writes `server.crt`, `server.key`, and both in `server.pem`.
pub(crate) fn write(kind: KeyKind, folder: &Path) -> anyhow::Result<()> {
    let key = match kind {
        KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
    };
    let names: Vec<String> = SERVERS.iter().map(|server| format!("{server}.example.com")).collect();
    let certificate = CertificateParams::new(names)?.self_signed(&key)?.pem();
    let key = key.serialize_pem();
    fs::write(folder.join("server.crt"), &certificate)?;
    fs::write(folder.join("server.key"), &key)?;
    fs::write(folder.join("server.pem"), certificate + &key)?;
    Ok(())
}
