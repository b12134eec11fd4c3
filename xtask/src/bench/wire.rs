//! A connection that is kept, for requests made beforehand: a client that costs next to nothing, for
//! the service is measured on the same processors.

use std::io::ErrorKind;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;

/// The longest answer that is of use here.
const LONGEST: usize = 64 * 1024;

/// One request at a time.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect to the service")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(4 * 1024) })
    }

    /// Sends a request and reads the answer to its end; its status.
    pub async fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.send(request).await?;
        self.answer.clear();
        loop {
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut self.answer) {
                Ok(0) => bail!("the service closed the connection"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = whole(&self.answer) {
                return Ok(status);
            }
            if self.answer.len() > LONGEST {
                bail!("the answer does not end");
            }
        }
    }

    async fn send(&self, mut request: &[u8]) -> Result<()> {
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

/// The status of an answer that is there to its end, by its `content-length`.
fn whole(answer: &[u8]) -> Option<u16> {
    let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let length: usize = length.unwrap_or_default();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    (answer.len() >= head_end + length).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(whole(answer), Some(503));
        for length in 0..answer.len() {
            assert_eq!(whole(&answer[..length]), None, "{length} bytes");
        }
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Some(200));
    }
}
