//! Which of several certificates a client gets.

/// How well the DNS names of a certificate match a server name. The greatest is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameMatch {
    /// None of them does.
    No,
    /// A wildcard does.
    Wildcard,
    /// One is the name.
    Exact,
}

impl NameMatch {
    /// The best match of these names, which are in lower case like `name`.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>, name: &str) -> Self {
        let of_one = |own: &'n str| {
            if own == name {
                NameMatch::Exact
            } else if is_wildcard_for(own, name) {
                NameMatch::Wildcard
            } else {
                NameMatch::No
            }
        };
        names.into_iter().map(of_one).max().unwrap_or(NameMatch::No)
    }
}

/// Whether the DNS name of a certificate is a wildcard for a server name. It stands for one label (RFC 9525 §6.3).
pub fn is_wildcard_for(own: &str, name: &str) -> bool {
    let suffix = name.split_once('.').map(|(_, suffix)| suffix);
    suffix.is_some() && own.strip_prefix("*.") == suffix
}

/// How much sluice prefers a certificate to others that the client can use. The greatest is served; of equal ones, that
/// of the route's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preference {
    /// Whether it is valid now.
    pub is_valid: bool,
    /// How well it matches the server name.
    pub name: NameMatch,
    /// Whether a signature costs less than one of RSA.
    pub is_cheap: bool,
}
