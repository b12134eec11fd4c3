//! Free ports for the servers that tests start.

use std::net::{TcpListener, UdpSocket};
use std::num::NonZero;

use anyhow::{Result, bail};

use crate::random::random_below;

/// The first of the ports that are tried.
const FIRST_PORT: u16 = 20_000;

/// Number of the ports that are tried. They end below 32768, where the ports begin that Linux assigns
/// to outgoing connections and to sockets without a port: such a port is often taken before its
/// server binds it.
const PORT_COUNT: NonZero<u16> = NonZero::new(12_768).unwrap();

/// Maximum number of ports that are tried.
const MAX_ATTEMPTS: usize = 100;

/// Returns a TCP port of 127.0.0.1 that is free now. It is random, so another process that uses this
/// function hardly takes it before the caller binds it.
///
/// # Errors
/// Returns an error if no port is found that is free.
pub fn free_tcp_port() -> Result<u16> {
    free_port(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

/// Returns a UDP port that is free on all interfaces now. It is random, so another process that uses
/// this function hardly takes it before the caller binds it.
///
/// # Errors
/// Returns an error if no port is found that is free.
pub fn free_udp_port() -> Result<u16> {
    free_port(|port| UdpSocket::bind(("0.0.0.0", port)).is_ok())
}

fn free_port(is_free: impl Fn(u16) -> bool) -> Result<u16> {
    for _ in 0..MAX_ATTEMPTS {
        let port = FIRST_PORT + random_below(PORT_COUNT)?;
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("none of {MAX_ATTEMPTS} random ports is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_outgoing_connections_are_not_returned() {
        for _ in 0..50 {
            for port in [free_tcp_port().unwrap(), free_udp_port().unwrap()] {
                assert!((20_000..32_768).contains(&port), "{port}");
            }
        }
    }
}
