//! The length of secrets that sign tokens.

use crate::Invalid;

/// Minimum length in bytes of a secret for HS256 (RFC 7518, §3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Checks that a secret is long enough for HS256.
///
/// # Errors
/// Returns [`Invalid`] if the secret has fewer than [`MIN_SECRET_BYTES`] bytes. The message does not
/// contain the secret.
pub fn check_secret(secret: &str) -> Result<(), Invalid> {
    if secret.len() >= MIN_SECRET_BYTES {
        return Ok(());
    }
    let advice = "generate one with `openssl rand -hex 32`";
    Err(Invalid::new(format!("must have at least {MIN_SECRET_BYTES} bytes; {advice}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_secret_is_refused() {
        assert!(check_secret(&"a".repeat(31)).is_err() && check_secret(&"a".repeat(32)).is_ok());
    }
}
