//! What an explanation says of the TLS that the winner serves.

use std::fmt::{self, Formatter};

use jiff::Timestamp;

use super::Explanation;
use crate::admin::certificates::ServedCertificate;
use crate::admin::report::RoutesReport;
use crate::routing::RouteSpec;
use crate::termination::{
    CaText, ClientCertificatesText, MinVersion, NameMatch, Termination, TerminationText, TlsState,
    UpstreamText,
};

impl Explanation {
    /// Takes what a running sluice reports of the TLS that the winner serves.
    pub fn take_report(&mut self, report: &RoutesReport) {
        let Some(winner) = &self.winner else { return };
        let spec = &winner.route.spec;
        self.certificates = report.certificates_of(&spec.key).cloned().collect();
        self.tls_state = report.tls_state(&spec.key);
    }

    /// The certificates that a termination has, and its state.
    pub(super) fn take_termination(&mut self, termination: &Termination) {
        let certificates = termination.certificates();
        let certificates =
            certificates.map(|(text, facts)| ServedCertificate::of(&text.secret, facts));
        self.certificates = certificates.collect();
        self.tls_state = Some(termination.state());
    }

    pub(super) fn fmt_tls(&self, spec: &RouteSpec, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(termination) = &spec.termination else { return Ok(()) };
        let TerminationText { certificates, min_version, client_certificates, upstream } =
            termination.text();
        let version = match min_version {
            MinVersion::V12 => "1.2",
            MinVersion::V13 => "1.3",
        };
        let state = match self.tls_state {
            Some(TlsState::Refused) => {
                ", but cannot serve it now: connections are refused (no_certificate)"
            }
            Some(TlsState::Stale) => ", with what its Secrets had last: one of them cannot be used",
            Some(TlsState::Served) | None => "",
        };
        writeln!(f, "  tls: Terminate, at least {version}{state}")?;
        self.fmt_certificate(f)?;
        let secrets: Vec<&str> = certificates.iter().map(|one| &*one.secret).collect();
        writeln!(f, "  tls.certificates: Secret {}", secrets.join(", "))?;
        if let Some(ClientCertificatesText { required, ca }) = client_certificates {
            let required = if *required { "required" } else { "optional" };
            writeln!(f, "  tls.clientCertificates: {required}, of {}", described_ca(ca))?;
        }
        match upstream {
            Some(UpstreamText { server_name, ca, client_certificate }) => {
                write!(f, "  tls.upstream: {server_name}, of {}", described_ca(ca))?;
                if let Some(certificate) = client_certificate {
                    write!(f, ", with the certificate of Secret {}", certificate.secret)?;
                }
                writeln!(f)
            }
            None => writeln!(f, "  tls.upstream: none, so backends get plain TCP"),
        }
    }

    /// The certificate that this name gets.
    fn fmt_certificate(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let now = Timestamp::now();
        let name = self.query.name.as_deref();
        let best = |only_rsa: bool| {
            let fitting = self.certificates.iter().rev().filter(|one| !only_rsa || one.is_rsa());
            fitting.max_by_key(|one| one.preference(name, now))
        };
        let Some(first) = best(false) else { return Ok(()) };
        writeln!(f, "  certificate: {}", described(first, name, now))?;
        match best(true) {
            Some(rsa) if rsa != first => {
                writeln!(
                    f,
                    "  certificate for clients that know only RSA: {}",
                    described(rsa, name, now)
                )
            }
            _ => Ok(()),
        }
    }
}

fn described(one: &ServedCertificate, name: Option<&str>, now: Timestamp) -> String {
    let ServedCertificate { secret, serial, not_after, key, .. } = one;
    let preference = one.preference(name, now);
    let valid = if preference.is_valid { "" } else { ", NOT VALID NOW" };
    let covers = match name {
        Some(name) if preference.name == NameMatch::No => format!(", without the name {name}"),
        _ => String::new(),
    };
    format!("of Secret {secret}, serial {serial}, {key}, until {not_after}{valid}{covers}")
}

fn described_ca(ca: &CaText) -> String {
    match ca {
        CaText::ConfigMap(name) => format!("ConfigMap {name}"),
        CaText::Secret(name) => format!("Secret {name}"),
    }
}
