//! A minimal HTTP client for prepared requests. It uses little CPU time, because it shares the
//! cores with the measured service.

use std::io::ErrorKind;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;

/// Maximum size of a response in bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// A kept connection for one request at a time.
pub struct Connection {
    stream: TcpStream,
    response: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).await.context("failed to connect to the service")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, response: Vec::with_capacity(4 * 1024) })
    }

    /// Sends a request, reads the whole response, and returns its status.
    pub async fn send(&mut self, request: &[u8]) -> Result<u16> {
        self.write(request).await?;
        self.response.clear();
        loop {
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut self.response) {
                Ok(0) => bail!("the service closed the connection"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = status_if_complete(&self.response) {
                return Ok(status);
            }
            if self.response.len() > MAX_RESPONSE {
                bail!("the response is larger than {MAX_RESPONSE} bytes");
            }
        }
    }

    async fn write(&self, mut request: &[u8]) -> Result<()> {
        while !request.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(request) {
                Ok(sent) => request = &request[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Returns the status of a response that is complete according to its `content-length`. `None`
/// means that more bytes must be read.
fn status_if_complete(response: &[u8]) -> Option<u16> {
    let head = Head::parse(response)?;
    (response.len() >= head.response_length).then_some(head.status)
}

/// The parts of a response's head that a load generator needs.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub status: u16,
    /// Number of bytes of the head and the body.
    pub response_length: usize,
}

impl Head {
    /// Parses the head by its lines. `None` means that it is incomplete.
    ///
    /// Only calls functions that are compiled in the standard library, because xtask itself is
    /// compiled without optimization.
    pub fn parse(response: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(response).or_else(|error| {
            // A body may end within a character.
            std::str::from_utf8(&response[..error.valid_up_to()])
        });
        let (text, mut position, mut body_length) = (text.ok()?, 0, 0);
        loop {
            let line_length = text[position..].find('\n')? + 1;
            let line = text[position..position + line_length].trim_end();
            position += line_length;
            if line.is_empty() {
                break;
            }
            if let Some(value) = value_of(line, "content-length:") {
                body_length = value.parse().ok()?;
            }
        }
        let status = text.get(9..12)?.parse().ok()?;
        Some(Self { status, response_length: position + body_length })
    }
}

fn value_of<'line>(line: &'line str, name: &str) -> Option<&'line str> {
    let found = line.get(..name.len())?;
    found.eq_ignore_ascii_case(name).then(|| line[name.len()..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_is_complete_with_its_last_byte() {
        let response = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(status_if_complete(response), Some(503));
        for length in 0..response.len() {
            assert_eq!(status_if_complete(&response[..length]), None, "{length} bytes");
        }
        let empty = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(status_if_complete(empty), Some(200));
    }
}
