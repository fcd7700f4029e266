//! The table of targets. Each gets any bytes; it must not panic, hang or take much memory, and what it asserts must hold.

mod objects;
mod tar;
mod words;

/// Name and work. The names are those of the folders in `fuzz/seeds`.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("apply", objects::apply),
    ("cron", words::cron),
    ("dns", net::fuzzing::dns),
    ("json", objects::json),
    ("layer", tar::layer),
    ("manifest", runtime::fuzzing::manifest),
    ("patch", objects::patch),
    ("protobuf", objects::protobuf),
    ("quantity", words::quantity),
    ("record", store::fuzzing::record),
    ("selector", words::selector),
    ("shim", words::shim),
    ("spdy", node::fuzzing::spdy),
    ("time", words::time),
    ("websocket", node::fuzzing::websocket),
    ("yaml", objects::yaml),
];
