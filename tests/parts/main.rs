//! The parts of the crate, each by itself and through what it offers to others: the table, the reader
//! of hellos, the settings, the admin port, the command line; and what is said of them elsewhere,
//! which has to stay true: the documentation, and the walls between the parts.
//!
//! They are one binary, because each binary links all that the crate depends on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod allocations;
mod cli;
mod compare;
mod config;
mod corpora;
mod docs;
mod faults;
mod hello;
mod image;
mod routing_model;
mod walls;
