//! The architecture, read from the sources: parts import one way, no files import each other in a
//! circle, no two types share a name, and setters look alike everywhere.
#![cfg(not(lvs_loom))]

mod circles;
mod growth;
mod layers;
mod names;
mod package;
mod resolve;
mod setters;
mod sources;
