//! Random text for unique names and for secrets, and random numbers.

use std::num::NonZero;

use anyhow::Result;

/// Returns 16 random hex digits (64 bits).
///
/// # Errors
/// Returns an error if the system provides no randomness.
pub fn random_hex() -> Result<String> {
    Ok(format!("{:016x}", getrandom::u64()?))
}

/// Returns a random number below `bound`, which must not be zero.
///
/// # Errors
/// Returns an error if the system provides no randomness.
pub(crate) fn random_below(bound: NonZero<u16>) -> Result<u16> {
    Ok(u16::try_from(getrandom::u32()? % u32::from(bound.get()))?)
}
