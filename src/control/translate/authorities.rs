//! Problems with the authorities that routes name, where all ConfigMaps are known.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::builder::Builder;
use super::conditions::Problem;
use super::key;
use crate::control::checks::{Authority, AuthorityFault, authority};
use crate::routing::{CheckMethod, ObjectKey, RouteSpec};

/// The routes of `builder` whose authorities are not in `config_maps`. While sluice runs, its checks find that out, so
/// no status has it.
pub(super) fn problems(builder: &Builder, config_maps: &[ConfigMap]) -> Vec<Problem> {
    let known: HashMap<ObjectKey, Authority> = config_maps
        .iter()
        .filter_map(|one| Some((key(&one.metadata)?, authority(one.data.as_ref()))))
        .collect();
    let problem = |route: &RouteSpec| {
        let CheckMethod::Tls(tls) = route.check()?.method else { return None };
        let ca = tls.ca?;
        let fault = match known.get(&ca) {
            Some(authority) => authority.clone().err()?,
            None => AuthorityFault::Missing,
        };
        Some(Problem {
            key: route.key.clone(),
            field: "spec.health.active.ca.configMap".to_owned(),
            reason: "",
            message: format!("{ca}: {fault}"),
        })
    };
    builder.routes.all_resolved().filter_map(|route| problem(&route.spec)).collect()
}
