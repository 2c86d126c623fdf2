//! The objects that people write: `SniRoute`, `sluice.dev/v1alpha1`.

/// Placeholder.
#[derive(Clone, Debug, Default)]
pub struct SniRoute {}
