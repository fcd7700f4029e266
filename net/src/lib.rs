//! How packets and names reach pods: DNS.
//!
//! It never starts a container and never decides where a pod runs. Start at [`dns`].

pub mod dns;
