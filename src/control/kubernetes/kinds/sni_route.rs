//! `SniRoute`.

use tracing::debug;

use super::{IncomingObject, Specified, WatchedKind};
use crate::control::api::{FieldFault, RouteClaims, SniRoute, SniRouteSpec};
use crate::control::translate::{Builder, UnreadableOutcome, UnreadableRoute};
use crate::routing::Kind;
use crate::yaml::FieldPath;

#[derive(Debug)]
pub(super) struct SniRoutes;

impl WatchedKind for SniRoutes {
    fn kind(&self) -> Kind {
        Kind::SniRoute
    }

    fn put(&self, object: &IncomingObject<'_>, builder: &mut Builder) -> Result<(), FieldFault> {
        builder.put_route(&route(object)?);
        Ok(())
    }

    fn put_unreadable(
        &self,
        object: &IncomingObject<'_>,
        why: &str,
        builder: &mut Builder,
    ) -> Option<&'static str> {
        match builder.put_unreadable_route(&unreadable(object, why)) {
            UnreadableOutcome::Kept => Some("it is served as it was when it was read last"),
            UnreadableOutcome::Unused => Some("it gets no connection"),
            UnreadableOutcome::Elsewhere => {
                let route = object.head.key();
                debug!(kind = Kind::SniRoute.as_str(), %route, "another installation's route cannot be read");
                None
            }
        }
    }
}

/// The route that an object is, or the field that is at fault and why.
fn route(IncomingObject { head, text }: &IncomingObject<'_>) -> Result<SniRoute, FieldFault> {
    let Specified { spec } =
        text.parse_with_known_spec::<Specified<SniRouteSpec>>(Kind::SniRoute)?;
    // The oldest route wins, and one of an unknown age must not be taken for that.
    if head.created.is_err() {
        let field = FieldPath::parse("metadata.creationTimestamp");
        return Err(FieldFault { field, message: "is no time that can be read".to_owned() });
    }
    Ok(SniRoute { metadata: head.metadata(), spec, status: None })
}

/// A route that cannot be read, as far as it can.
fn unreadable(IncomingObject { head, text }: &IncomingObject<'_>, why: &str) -> UnreadableRoute {
    let class = text.field(&["spec", "className"]);
    // Of one that has no age that can be read, it is not known before whom its claims come.
    let claims = head.created.is_ok().then(|| text.parse::<Specified<RouteClaims>>().ok());
    UnreadableRoute {
        metadata: head.metadata(),
        class: class.map_or(Some(None), |class| serde_json::from_slice(class).ok()),
        claims: claims.flatten().map(|Specified { spec }| spec),
        why: why.to_owned(),
    }
}
