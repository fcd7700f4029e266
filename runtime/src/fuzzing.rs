//! What fuzzing reaches of this crate's insides.

use crate::image::manifest::{Document, configuration};
use crate::image::tarball::Tarball;
use crate::image::unpack::unpack;
use std::path::Path;

/// Documents of an image.
pub fn manifest(bytes: &[u8]) {
    if let Ok(document) = serde_json::from_slice::<Document>(bytes) {
        let _ = document.for_here("image");
    }
    let _ = configuration("image", bytes);
}

/// The members of an archive; nothing is unpacked.
pub fn members(bytes: &[u8]) {
    let mut tarball = Tarball::new(bytes);
    while let Ok(Some(_)) = tarball.next() {}
}

/// A layer, into the empty directory `into`; whether it was taken.
pub fn layer(bytes: &[u8], into: &Path) -> bool {
    unpack(bytes, into, &[]).is_ok()
}
