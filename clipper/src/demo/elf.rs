//! What a program needs to be loaded: read off its ELF headers. Only 64-bit little-endian files. Pure.
//! See the System V ABI, "Program Header" and "Dynamic Section".

const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;
const DYNAMIC_ENTRY_BYTES: usize = 16;

/// A file that is no ELF, or cut short.
#[derive(Debug, thiserror::Error)]
#[error("not a 64-bit ELF file of this machine")]
pub(super) struct NotElf;

struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    len: usize,
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(file: &[u8], at: usize) -> Option<usize> {
    bytes(file, at).map(u16::from_le_bytes).map(usize::from)
}

fn long(file: &[u8], at: usize) -> Option<u64> {
    bytes(file, at).map(u64::from_le_bytes)
}

fn size(file: &[u8], at: usize) -> Option<usize> {
    long(file, at)?.try_into().ok()
}

fn segments(file: &[u8]) -> Option<Vec<Segment>> {
    if !file.starts_with(MAGIC) {
        return None;
    }
    let (table, each, count) = (size(file, 32)?, half(file, 54)?, half(file, 56)?);
    let segment = |index: usize| {
        let at = table.checked_add(each.checked_mul(index)?)?;
        Some(Segment {
            kind: bytes(file, at).map(u32::from_le_bytes)?,
            offset: size(file, at + 8)?,
            address: long(file, at + 16)?,
            len: size(file, at + 32)?,
        })
    };
    (0..count).map(segment).collect()
}

/// The text at a place, up to its zero byte.
fn text(file: &[u8], at: usize) -> Option<String> {
    let rest = file.get(at..)?;
    let len = rest.iter().position(|byte| *byte == 0)?;
    String::from_utf8(rest[..len].to_vec()).ok()
}

/// The loader that a program asks for; `None` for one that needs none.
///
/// # Errors
/// See [`NotElf`].
pub(super) fn interpreter(file: &[u8]) -> Result<Option<String>, NotElf> {
    let segments = segments(file).ok_or(NotElf)?;
    let Some(segment) = segments.iter().find(|segment| segment.kind == PT_INTERP) else { return Ok(None) };
    text(file, segment.offset).map(Some).ok_or(NotElf)
}

/// The name under which a library is looked for; `None` if it has none.
///
/// # Errors
/// See [`NotElf`].
pub(super) fn soname(file: &[u8]) -> Result<Option<String>, NotElf> {
    let segments = segments(file).ok_or(NotElf)?;
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else { return Ok(None) };
    let entries = || {
        let places = (0..dynamic.len / DYNAMIC_ENTRY_BYTES)
            .map(|index| dynamic.offset.saturating_add(index * DYNAMIC_ENTRY_BYTES));
        places.map_while(|at| Some((long(file, at)?, long(file, at + 8)?)))
    };
    let value = |wanted: u64| entries().find(|(tag, _)| *tag == wanted).map(|(_, value)| value);
    let Some((name, strings)) = value(DT_SONAME).zip(value(DT_STRTAB)) else { return Ok(None) };
    // The table's address is that in memory: the segment that is loaded there says where it is in the file.
    let place = segments.iter().filter(|segment| segment.kind == PT_LOAD).find_map(|segment| {
        let inside = usize::try_from(strings.checked_sub(segment.address)?).ok()?;
        (inside < segment.len).then_some(segment.offset.checked_add(inside)?)
    });
    let at = place.and_then(|place| place.checked_add(usize::try_from(name).ok()?)).ok_or(NotElf)?;
    text(file, at).map(Some).ok_or(NotElf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_and_its_c_library_are_understood() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let Some(loader) = interpreter(&own).unwrap() else { return };
        assert!(loader.starts_with('/') && loader.contains("ld-"), "{loader}");
        let library = std::fs::read(&loader).unwrap();
        assert_eq!(soname(&library).unwrap().as_deref(), loader.rsplit('/').next());
        assert_eq!(interpreter(&library).unwrap(), None);
    }

    #[test]
    fn what_is_cut_short_or_something_else_is_refused() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        for wrong in [&b""[..], b"#!/bin/sh\n", &own[..16], &own[..70]] {
            assert!(interpreter(wrong).is_err());
            assert!(soname(wrong).is_err());
        }
    }
}
