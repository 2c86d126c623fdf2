//! Where the fields of a policy come from.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a field of an effective policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyOrigin {
    /// The route.
    Route,
    /// The setting `policy` of the installation.
    Policy,
    /// The setting `policyCeiling`: the other layers have more, or no bound.
    PolicyCeiling,
    /// sluice.
    Default,
}

impl PolicyOrigin {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyOrigin::Route => "route",
            PolicyOrigin::Policy => "policy",
            PolicyOrigin::PolicyCeiling => "policyCeiling",
            PolicyOrigin::Default => "default",
        }
    }
}

impl fmt::Display for PolicyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The origin of each field of an effective policy, by its path, such as `timeouts.idle`.
pub type PolicyOrigins = BTreeMap<String, PolicyOrigin>;
