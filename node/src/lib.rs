//! The kubelet: drives a [`runtime::Runtime`] until this machine runs the pods that the API assigns to it, and tells the API how they are.
#![allow(dead_code)]
mod amount;
mod back_off;
mod downward;
mod env;
mod files;
mod objects;
mod observed;
mod plan;
mod probe;
mod resources;
mod spec;
mod status;
mod volume;
