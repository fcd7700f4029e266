//! Reads the committed table. It is ours, so a fault in it is a fault of the build and may panic.

use super::{Field, Kind, ListType, Many, Schema, Shape, Type, TypeId};
use std::collections::HashMap;
use std::io::Read;

static PACKED: &[u8] = include_bytes!("table.gz");

/// Unpacks the table. The text stays in memory for ever: every name is a slice of it.
pub(super) fn published() -> Schema {
    let mut text = String::new();
    flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text).expect("the committed table unpacks");
    parse(text.leak())
}

fn parse(text: &'static str) -> Schema {
    let mut rows: Vec<(Type, Vec<Field>)> = Vec::with_capacity(1500);
    let mut schema =
        Schema { types: Vec::new(), kinds: HashMap::with_capacity(500), names: HashMap::with_capacity(1500) };
    for line in text.lines() {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or("");
        match next() {
            "T" => {
                let (name, go_name, shape, atomic) = (next(), next(), shape(next()), next() == "a");
                let row =
                    Type { name, go_name, shape, atomic, fields: Box::default(), names: Box::default() };
                schema.names.insert(name, TypeId(rows.len() as u32));
                rows.push((row, Vec::new()));
            }
            "F" => rows.last_mut().expect("a field follows its type").1.push(field(next)),
            "K" => {
                let key = (next(), next(), next());
                schema.kinds.insert(key, TypeId(next().parse().expect("a type's index")));
            }
            other => panic!("the committed table has a line of unknown sort {other:?}"),
        }
    }
    schema.types = rows.into_iter().map(|(row, fields)| Type { fields: fields.into(), ..row }).collect();
    index(&mut schema.types);
    schema
}

/// Lists the JSON names of every type, those of inlined types included.
fn index(types: &mut [Type]) {
    let names: Vec<_> = (0..types.len()).map(|index| names(types, index)).collect();
    for (row, names) in types.iter_mut().zip(names) {
        row.names = names.into();
    }
}

fn names(types: &[Type], index: usize) -> Vec<(&'static str, u16)> {
    let mut found = Vec::new();
    for (position, field) in types[index].fields.iter().enumerate() {
        match field.kind {
            Kind::Type(inner) if field.inline => {
                found.extend(
                    names(types, inner.0 as usize).into_iter().map(|(name, _)| (name, position as u16)),
                );
            }
            _ => found.push((field.name, position as u16)),
        }
    }
    found.sort_unstable();
    // The decoder keeps the names it has seen in 128 bits.
    assert!(found.len() <= 128, "a type has too many fields");
    found
}

fn shape(text: &str) -> Shape {
    match text {
        "struct" => Shape::Struct,
        "list" => Shape::List,
        "quantity" => Shape::Quantity,
        "time" => Shape::Time,
        "microtime" => Shape::MicroTime,
        "duration" => Shape::Duration,
        "intorstring" => Shape::IntOrString,
        "raw" => Shape::Raw,
        "orarray" => Shape::SchemaOrArray,
        "orbool" => Shape::SchemaOrBool,
        "orstrings" => Shape::SchemaOrStrings,
        other => panic!("the committed table has an unknown shape {other:?}"),
    }
}

fn kind(text: &str) -> Kind {
    match text {
        "s" => Kind::String,
        "b" => Kind::Bytes,
        "i" => Kind::Int32,
        "l" => Kind::Int64,
        "u" => Kind::Uint,
        "o" => Kind::Bool,
        "d" => Kind::Double,
        "a" => Kind::Any,
        _ => Kind::Type(TypeId(text[1..].parse().expect("a type's index"))),
    }
}

fn field(mut next: impl FnMut() -> &'static str) -> Field {
    let (number, name, kind, flags, go_type) = (next(), next(), kind(next()), next(), next());
    let (patch_strategy, patch_merge_key) = next().split_once(':').unwrap_or_default();
    let (list, list_keys) = {
        let text = next();
        text.split_once(':').unwrap_or((text, ""))
    };
    let atomic_here = match next() {
        "atomic" => Some(true),
        "granular" => Some(false),
        _ => None,
    };
    let default = next();
    let has = |flag: char| flags.contains(flag);
    Field {
        number: number.parse().expect("a field's number"),
        name,
        kind,
        many: match (has('m'), has('r')) {
            (true, true) => Many::MapOfLists,
            (true, false) => Many::Map,
            (false, true) => Many::List,
            (false, false) => Many::One,
        },
        inline: has('i'),
        omit_empty: has('e'),
        omit_zero: has('z'),
        pointer: has('p'),
        required: has('q'),
        go_type,
        patch_strategy,
        patch_merge_key,
        list_type: match list {
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => ListType::Atomic,
        },
        list_keys: if list_keys.is_empty() { Box::default() } else { list_keys.split(',').collect() },
        atomic_here,
        default: (!default.is_empty()).then(|| serde_json::from_str(default).expect("a default is JSON")),
    }
}
