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
    let head_end = response.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&response[..head_end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let length: usize = length.unwrap_or_default();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    (response.len() >= head_end + length).then_some(status)
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
