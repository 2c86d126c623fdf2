//! `ReferenceGrant`.

use super::{IncomingObject, Specified, WatchedKind};
use crate::control::api::{FieldFault, ReferenceGrant, ReferenceGrantSpec};
use crate::control::translate::Builder;
use crate::routing::Kind;

#[derive(Debug)]
pub(super) struct ReferenceGrants;

impl WatchedKind for ReferenceGrants {
    fn kind(&self) -> Kind {
        Kind::ReferenceGrant
    }

    fn put(&self, object: &IncomingObject<'_>, builder: &mut Builder) -> Result<(), FieldFault> {
        builder.put_grant(&grant(object)?);
        Ok(())
    }

    fn put_unreadable(
        &self,
        object: &IncomingObject<'_>,
        _: &str,
        builder: &mut Builder,
    ) -> Option<&'static str> {
        Some(match builder.keep_grant(&object.head.metadata()) {
            true => "it grants what it did when it was read last",
            false => "it grants nothing",
        })
    }
}

fn grant(IncomingObject { head, text }: &IncomingObject<'_>) -> Result<ReferenceGrant, FieldFault> {
    let Specified { spec } = text.parse::<Specified<ReferenceGrantSpec>>()?;
    Ok(ReferenceGrant { metadata: head.metadata(), spec })
}
