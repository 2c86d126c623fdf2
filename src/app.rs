//! Binds everything.
