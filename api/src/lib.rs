//! The vocabulary of Clipper: kinds, names, quantities, selectors, `Status`, the table row of a resource and
//! its rules, patches and apply.
//!
//! No I/O, no tokio, no clock: what needs the time takes it as an argument. Start at [`resource::Resource`],
//! which is what every other crate speaks about, and [`object::Object`], the immutable version of one thing.

pub mod admission;
pub mod age;
pub mod apply;
pub mod cron;
pub mod custom;
pub mod decode;
pub mod errors;
pub mod json_path;
pub mod lookup;
pub mod names;
pub mod object;
pub mod patch;
pub mod period;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod structural;
pub mod time_text;
pub mod user;

pub use admission::{Admission, AdmissionRequest, Operation};
pub use errors::{FieldError, FieldErrors};
pub use jiff::Timestamp;
pub use lookup::Lookup;
pub use object::{Meta, Object, ObjectName};
pub use quantity::Quantity;
pub use resource::{Resource, Scope};
pub use schema::Schema;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Reason, Status};
pub use strategy::{Context, DynStrategy, Strategy};
pub use user::UserInfo;
