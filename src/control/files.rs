//! Manifests from files and folders.
