//! Writes about objects that somebody else may have deleted meanwhile.

use api::Status;

/// `NotFound` is no failure where the object has nothing to say any more, or its end is what was wanted.
///
/// # Errors
/// Every other refusal.
pub fn gone_is_fine<T>(result: Result<T, Status>) -> Result<(), Status> {
    match result {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}
