//! HTTP/1.1, as far as it takes to be asked by a page and to read what a client has sent.

use anyhow::{Context, Result};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// A request, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Their names in lower case.
    headers: Vec<(String, String)>,
    /// What came after the head.
    pub body: String,
}

impl Request {
    /// The header of this name, in lower case: empty when there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map_or("", |(_, value)| value)
    }

    /// The next one: none when the client has nothing more to say.
    pub(crate) async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = words.next().zip(words.next()).context("it is no HTTP")?;
        let mut request = Self { method, path, headers: Vec::new(), body: String::new() };
        loop {
            let mut line = String::new();
            from.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            request.headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let length = request.header("content-length").parse().unwrap_or_default();
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        request.body = String::from_utf8(body)?;
        Ok(Some(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_on_one_connection_are_read_one_after_the_other() {
        let mut said = &b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}\
                          GET / HTTP/1.1\r\n\r\n"[..];
        let first = Request::read(&mut said).await.unwrap().unwrap();
        assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", "/a?b=c"));
        assert_eq!((first.header("host"), first.body.as_str()), ("x", "{}"));
        let second = Request::read(&mut said).await.unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.header("host")), ("/", ""));
        assert_eq!(Request::read(&mut said).await.unwrap(), None);
    }
}
