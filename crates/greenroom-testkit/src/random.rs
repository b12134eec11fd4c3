//! Random text for unique names and for secrets.

use anyhow::Result;

/// Returns 16 random hex digits (64 bits).
///
/// # Errors
/// Returns an error if the system provides no randomness.
pub fn random_hex() -> Result<String> {
    Ok(format!("{:016x}", getrandom::u64()?))
}
