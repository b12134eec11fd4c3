//! A minimal HTTP/1.1 request parser, for the test site and the recording proxy.

use anyhow::{Context, Result};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// A request as a client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, such as `GET`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Names (in lower case) and values.
    headers: Vec<(String, String)>,
    /// The body; empty if there is no `Content-Length`.
    pub body: String,
}

impl Request {
    /// Returns the value of the header with this name, which must be in lower case. An absent
    /// header is returned as the empty string.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(header_name, _)| header_name == name);
        header.map_or("", |(_, value)| value)
    }

    /// Reads the next request of a connection. `None` means that the client has closed the
    /// connection.
    pub(crate) async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) =
            words.next().zip(words.next()).context("the first line is not an HTTP request line")?;
        let mut request = Self { method, path, headers: Vec::new(), body: String::new() };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            request.headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let length = request.header("content-length").parse().unwrap_or_default();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await?;
        request.body = String::from_utf8(body)?;
        Ok(Some(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn consecutive_requests_on_one_connection_are_read_in_order() {
        let mut sent = &b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}\
                          GET / HTTP/1.1\r\n\r\n"[..];
        let first = Request::read(&mut sent).await.unwrap().unwrap();
        assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", "/a?b=c"));
        assert_eq!((first.header("host"), first.body.as_str()), ("x", "{}"));
        let second = Request::read(&mut sent).await.unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.header("host")), ("/", ""));
        assert_eq!(Request::read(&mut sent).await.unwrap(), None);
    }
}
