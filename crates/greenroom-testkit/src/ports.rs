//! Free ports for the servers that tests start.

use std::net::{TcpListener, UdpSocket};

use anyhow::Result;

/// Returns a TCP port of 127.0.0.1 that is free now. Another process may take the port before the
/// caller binds it.
///
/// # Errors
/// Returns an error if no port is free.
pub fn free_tcp_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Returns a UDP port that is free on all interfaces now. Another process may take the port before
/// the caller binds it.
///
/// # Errors
/// Returns an error if no port is free.
pub fn free_udp_port() -> Result<u16> {
    Ok(UdpSocket::bind(("0.0.0.0", 0))?.local_addr()?.port())
}
