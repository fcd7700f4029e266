//! Writes DER (X.690), as far as a certificate needs it. Pure.

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;

/// A context-specific tag around something.
pub(super) const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

/// A context-specific tag in the place of a primitive one.
pub(super) const fn implicit(number: u8) -> u8 {
    0x80 | number
}

/// A value: tag, length and its parts one after another.
pub(super) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            // At most eight bytes.
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A positive integer from its bytes, most significant first.
pub(super) fn positive(bytes: &[u8]) -> Vec<u8> {
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    match bytes.first() {
        Some(first) if *first < 0x80 => value(INTEGER, &[bytes]),
        // Without it the number would be negative; and zero has a byte, too.
        _ => value(INTEGER, &[&[0], bytes]),
    }
}

/// Bits by their numbers, as named bits are written: without zeros at the end.
pub(super) fn named_bits(bits: &[u8]) -> Vec<u8> {
    let mut bytes = [0_u8; 2];
    bits.iter().for_each(|bit| bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8));
    let used: &[u8] = match bytes {
        [0, 0] => &[],
        [first, 0] => &[first],
        both => &{ both },
    };
    let unused = used.last().map_or(0, |last| last.trailing_zeros() as u8);
    value(BIT_STRING, &[&[unused], used])
}

/// An object identifier.
pub(super) fn identifier(arcs: &[u32]) -> Vec<u8> {
    let [first, second, rest @ ..] = arcs else { return value(OBJECT_IDENTIFIER, &[]) };
    let mut out = Vec::new();
    for arc in std::iter::once(&(first * 40 + second)).chain(rest) {
        let groups = (1..5).rev().filter(|group| arc >> (7 * group) != 0);
        out.extend(groups.map(|group| 0x80 | (arc >> (7 * group) & 0x7f) as u8));
        out.push((arc & 0x7f) as u8);
    }
    value(OBJECT_IDENTIFIER, &[&out])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_x690_says() {
        assert_eq!(value(SEQUENCE, &[&[1], &[2, 3]]), [0x30, 3, 1, 2, 3]);
        assert_eq!(value(OCTET_STRING, &[&[0; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(value(OCTET_STRING, &[&[0; 300]])[..4], [4, 0x82, 1, 44]);
        assert_eq!(positive(&[0, 1]), [2, 1, 1]);
        assert_eq!(positive(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(positive(&[0, 0]), [2, 1, 0]);
        assert_eq!(named_bits(&[0, 2]), [3, 2, 5, 0xa0]);
        assert_eq!(named_bits(&[8]), [3, 3, 7, 0, 0x80]);
        assert_eq!(named_bits(&[]), [3, 1, 0]);
        assert_eq!(identifier(&[1, 2, 840, 10045, 4, 3, 2]), [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
        assert_eq!(identifier(&[2, 5, 29, 15]), [6, 3, 0x55, 0x1d, 0x0f]);
    }
}
