//! What every runtime must do, checked through the contract against the real engine: namespaces, control groups and mounts included, so as root.
//!
//! Each test has a directory and a control group of its own, and in the end checks that nothing is left of it. The image is made here from one
//! static program (`tests/probe`), whose arguments say what it does.

mod bench;
mod confinement;
mod images;
mod lifecycle;
mod registry;
mod restart;
mod speed;
mod streams;
