//! Active health checks: connections that sluice makes by itself to see whether an endpoint serves.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::{AlpnProtocol, CheckServerName, ConfigMapName, InvalidValue, Number, Timeout, schema};

/// How many results in a row a verdict may need.
pub(super) type ResultCount = Number<1, 10>;
/// The checks of one route alone are no flood for its servers.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// A check of a server that does not answer holds a place for so long, and others wait for it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The most protocols that a check may offer.
const MOST_PROTOCOLS: usize = 16;

/// Checks of the endpoints by connections of sluice itself. An endpoint that fails them is tried last, and never
/// forbidden. Routes that check the same address in the same way share one check.
///
/// The field is taken as a whole: what is not set here is not filled in by the installation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object with a type")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule(schema::CA_OF_ENFORCE, schema::CA_MISSING),
    schema::rule(schema::TLS_ONLY, schema::NOT_TLS),
]))]
pub struct ActiveHealth {
    /// - `TCP`: the endpoint takes a connection.
    /// - `TLS`: it also completes a TLS handshake. A server that asks for a client certificate passes. Backends that
    ///   get decrypted bytes, by a route with `tls` and without `tls.upstream`, are checked as by `TCP`.
    /// - `None`: there are no checks, whatever the installation has.
    #[serde(rename = "type")]
    pub kind: CheckKind,

    /// The time between two checks, such as `10s`, up to 10 % more or less; at least `1s`. Without it, `10s`.
    /// While results differ from the endpoint's state, the next check is after at most `1s`. Until a client has
    /// used the backend, it is at least `60s`. All checks of the process share a budget, which can make the time
    /// longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::check_interval")]
    pub interval: Option<Timeout>,

    /// How long one check may take, at most `10s`. Without it, `3s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::check_timeout")]
    pub timeout: Option<Timeout>,

    /// How many failures in a row make an endpoint unhealthy, 1 to 10. Without it, 3. The first result of all
    /// counts at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ResultCount")]
    pub unhealthy: Option<ResultCount>,

    /// How many successes in a row make it healthy again, 1 to 10. Without it, 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ResultCount")]
    pub healthy: Option<ResultCount>,

    /// The server name that the check of TLS asks for, and that the certificate must have. Without it,
    /// `tls.upstream.serverName`, and without that the first hostname of the route that is an exact name. A route that
    /// has none, and no `tls`, needs it; only a check that comes from the installation then sends no name, and judges none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CheckServerName")]
    pub server_name: Option<CheckServerName>,

    /// The protocols (ALPN) that the check of TLS offers, at most 16. Without any, it offers none.
    #[serde(default, deserialize_with = "protocols", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MOST_PROTOCOLS), extend("x-kubernetes-list-type" = "atomic"))]
    pub alpn: Vec<AlpnProtocol>,

    /// What is made of the server's certificate.
    /// - `None`: it is not looked at.
    /// - `Report`: its faults are reported, and the endpoint passes.
    /// - `Enforce`: the endpoint fails with a certificate that `ca` does not vouch for. Without a name to check,
    ///   it passes.
    ///
    /// Without it, `Report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "VerifyMode")]
    pub verify: Option<VerifyMode>,

    /// The certificates of the authorities that vouch for the server's. `Enforce` needs it. Without it, `Report`
    /// judges the name and the dates alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CaSource")]
    pub ca: Option<CaSource>,
}

/// How an endpoint is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CheckKind {
    /// By a TCP connection.
    #[serde(rename = "TCP")]
    Tcp,
    /// By a TLS handshake.
    #[serde(rename = "TLS")]
    Tls,
    /// Not at all.
    // Not `Off`, which the YAML of kubectl takes for `false`.
    None,
}

/// What is made of the certificate of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum VerifyMode {
    /// Nothing.
    // Not `Off`, as above.
    None,
    /// Its faults are reported.
    #[default]
    Report,
    /// Its faults are failures.
    Enforce,
}

/// Where the certificates of authorities are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object with a configMap")]
pub struct CaSource {
    /// The name of a ConfigMap in the namespace of the route. Its entry `ca.crt` has the certificates, in PEM.
    pub config_map: ConfigMapName,
}

impl ActiveHealth {
    /// Checks of this kind, without any further field.
    pub fn new(kind: CheckKind) -> Self {
        ActiveHealth {
            kind,
            interval: None,
            timeout: None,
            unhealthy: None,
            healthy: None,
            server_name: None,
            alpn: Vec::new(),
            verify: None,
            ca: None,
        }
    }

    /// The time between two checks.
    pub fn interval(&self) -> Duration {
        self.interval.map_or(Duration::from_secs(10), Timeout::get)
    }

    /// How long one check may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.map_or(Duration::from_secs(3), Timeout::get)
    }

    /// How many failures in a row make an endpoint unhealthy.
    pub fn unhealthy(&self) -> u32 {
        self.unhealthy.map_or(3, ResultCount::get)
    }

    /// How many successes in a row make it healthy again.
    pub fn healthy(&self) -> u32 {
        self.healthy.map_or(2, ResultCount::get)
    }

    /// What is made of the server's certificate.
    pub fn verify(&self) -> VerifyMode {
        match self.kind {
            CheckKind::Tls => self.verify.unwrap_or_default(),
            CheckKind::Tcp | CheckKind::None => VerifyMode::None,
        }
    }

    /// Checks the fields against each other. The messages begin with a field.
    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        let of_tls = [
            ("serverName", self.server_name.is_some()),
            ("alpn", !self.alpn.is_empty()),
            ("verify", self.verify.is_some()),
            ("ca", self.ca.is_some()),
        ];
        if self.kind != CheckKind::Tls
            && let Some((field, _)) = of_tls.into_iter().find(|(_, is_set)| *is_set)
        {
            return Err(InvalidValue::new(format!(
                "{field} is for checks of type TLS; write type: TLS, or leave {field} out"
            )));
        }
        if let Some(interval) = self.interval.filter(|interval| interval.get() < LEAST_INTERVAL) {
            return Err(InvalidValue::new(format!(
                "interval is {interval}, under the minimum of 1s"
            )));
        }
        if let Some(timeout) = self.timeout.filter(|timeout| timeout.get() > LONGEST_TIMEOUT) {
            return Err(InvalidValue::new(format!(
                "timeout is {timeout}, over the maximum of 10s"
            )));
        }
        if self.verify == Some(VerifyMode::Enforce) && self.ca.is_none() {
            return Err(InvalidValue::new(
                "verify is Enforce, and ca is missing; write ca: { configMap: NAME }, or verify: Report",
            ));
        }
        Ok(())
    }
}

impl fmt::Display for ActiveHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            CheckKind::Tcp => "TCP",
            CheckKind::Tls => "TLS",
            CheckKind::None => return f.write_str("no checks"),
        };
        let every = Timeout::new(self.interval()).map(|every| every.to_string());
        write!(f, "{kind} every {}", every.unwrap_or_default())?;
        if let Some(name) = &self.server_name {
            write!(f, ", as {name}")?;
        }
        match self.verify() {
            VerifyMode::Enforce => f.write_str(", with a valid certificate"),
            VerifyMode::None | VerifyMode::Report => Ok(()),
        }
    }
}

fn protocols<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AlpnProtocol>, D::Error> {
    let protocols: Vec<AlpnProtocol> = Option::deserialize(deserializer)?.unwrap_or_default();
    match protocols.len() {
        0..=MOST_PROTOCOLS => Ok(protocols),
        count => Err(D::Error::custom(format!(
            "has {count} items; at most {MOST_PROTOCOLS} are allowed"
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::HealthPolicy;

    fn read(active: Value) -> Result<HealthPolicy, String> {
        let value = json!({ "active": active });
        HealthPolicy::checked(value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_set_has_a_default() {
        let active = read(json!({ "type": "TLS" })).unwrap().active.unwrap();
        assert_eq!(active, ActiveHealth::new(CheckKind::Tls));
        assert_eq!(active.interval(), Duration::from_secs(10));
        assert_eq!(active.timeout(), Duration::from_secs(3));
        assert_eq!((active.unhealthy(), active.healthy()), (3, 2));
        assert_eq!(active.verify(), VerifyMode::Report);
        assert_eq!(ActiveHealth::new(CheckKind::Tcp).verify(), VerifyMode::None);
        assert_eq!(read(Value::Null).unwrap().active, None);
    }

    #[test]
    fn fields_that_contradict_each_other_are_refused() {
        for (active, expected) in [
            (
                json!({ "type": "TLS", "verify": "Enforce" }),
                "active.verify is Enforce, and ca is missing; write ca: { configMap: NAME }, or verify: \
                 Report",
            ),
            (
                json!({ "type": "TCP", "alpn": ["h2"] }),
                "active.alpn is for checks of type TLS; write type: TLS, or leave alpn out",
            ),
            (json!({ "type": "TCP", "interval": "999ms" }), "under the minimum of 1s"),
            (
                json!({ "type": "TCP", "timeout": "10s1ms" }),
                "timeout is 10s1ms, over the maximum of 10s",
            ),
            (json!({ "type": "TCP", "unhealthy": 0 }), "0 is not a number from 1 to 10"),
            (json!({ "type": "TLS", "serverName": "*.a.test" }), "is not a server name"),
            (
                json!({ "type": "TLS", "ca": { "configMap": "A" } }),
                "is not the name of a ConfigMap",
            ),
            (json!({ "interval": "1s" }), "missing field `type`"),
        ] {
            let error = read(active.clone()).unwrap_err();
            assert!(error.contains(expected), "{active}: {error}");
        }
    }
}
