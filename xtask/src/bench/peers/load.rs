//! The load on an HTTP service: one blocking client per connection.
//!
//! All services get the same load. Threads cost less CPU time here than tasks, because xtask is
//! compiled without optimization and the standard library is not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::bench::raw_http::Head;

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum size of a response in bytes.
const MAX_RESPONSE: usize = 256 * 1024;

const STACK_SIZE: usize = 128 * 1024;

/// The answers to a load.
#[derive(Debug, Default)]
pub struct Answers {
    /// Response times of the requests that succeeded, sorted, in microseconds.
    pub latencies: Vec<u32>,
    /// Number of requests that were answered with 503.
    pub refused: u64,
    /// From the first request to the last response.
    pub took: Duration,
}

impl Answers {
    /// Returns the response time in milliseconds of this share of the requests.
    pub fn quantile(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share between 0 and 1 of a length"
        )]
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(index).map_or(f64::NAN, |latency| f64::from(*latency) / 1_000.0)
    }
}

/// Repeats a request on kept connections. Each connection finishes its last request, so that the
/// answers can be compared with the stored rows. Blocks.
pub fn run(
    address: &str,
    request: &[u8],
    expected: u16,
    connections: usize,
    duration: Duration,
) -> Result<Answers> {
    let clients: Vec<_> = (0..connections).map(|_| Client::open(address)).collect::<Result<_>>()?;
    let begun = Instant::now();
    let end = begun + duration;
    let all: Result<Vec<Answers>> = thread::scope(|scope| {
        let mut running = Vec::new();
        for client in clients {
            let builder = thread::Builder::new().stack_size(STACK_SIZE);
            running.push(builder.spawn_scoped(scope, move || client.run(request, expected, end))?);
        }
        let join = |client: thread::ScopedJoinHandle<'_, Result<Answers>>| {
            client.join().map_err(|_| anyhow!("a client panicked"))?
        };
        running.into_iter().map(join).collect()
    });
    let mut total = Answers { took: begun.elapsed(), ..Answers::default() };
    for answers in all? {
        total.latencies.extend(answers.latencies);
        total.refused += answers.refused;
    }
    total.latencies.sort_unstable();
    Ok(total)
}

struct Client {
    stream: TcpStream,
    response: Vec<u8>,
}

impl Client {
    fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).context("failed to connect to the service")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(Self { stream, response: vec![0; MAX_RESPONSE] })
    }

    fn run(mut self, request: &[u8], expected: u16, end: Instant) -> Result<Answers> {
        let mut answers = Answers::default();
        loop {
            let begun = Instant::now();
            if begun >= end {
                return Ok(answers);
            }
            let status = self.send(request)?;
            if status == expected {
                answers.latencies.push(u32::try_from(begun.elapsed().as_micros())?);
            } else {
                ensure!(status == 503, "a request returned {status} instead of {expected}");
                answers.refused += 1;
            }
        }
    }

    /// Sends a request, reads the whole response, and returns its status.
    fn send(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request)?;
        let mut length = 0;
        let head = loop {
            length += self.read(length)?;
            if let Some(head) = Head::parse(&self.response[..length]) {
                break head;
            }
        };
        while length < head.response_length {
            length += self.read(length)?;
        }
        Ok(head.status)
    }

    fn read(&mut self, at: usize) -> Result<usize> {
        let read = self.stream.read(&mut self.response[at..]).context("no response")?;
        ensure!(read > 0, "the service closed the connection, or its response is too large");
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    /// Answers the requests of one connection with these responses, and then closes it.
    fn serve(responses: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; REQUEST.len()];
            for response in responses {
                stream.read_exact(&mut request).unwrap();
                stream.write_all(response.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn refusals_are_counted_apart_from_answers() {
        let address = serve(&[
            "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        ]);
        let mut client = Client::open(&address).unwrap();
        assert_eq!(client.send(REQUEST).unwrap(), 201);
        let error = client.run(REQUEST, 201, Instant::now() + RESPONSE_TIMEOUT);
        assert!(error.is_err(), "the service closed the connection after the refusal");
    }

    #[test]
    fn unexpected_status_stops_the_load() {
        let address = serve(&["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]);
        let error = run(&address, REQUEST, 201, 1, RESPONSE_TIMEOUT).unwrap_err();
        assert!(error.to_string().contains("404 instead of 201"), "{error}");
    }

    #[test]
    fn quantile_of_no_answers_is_not_a_number() {
        assert!(Answers::default().quantile(0.5).is_nan());
        let answers = Answers { latencies: vec![1_000, 2_000, 3_000], ..Answers::default() };
        assert!((answers.quantile(0.5) - 2.0).abs() < f64::EPSILON);
    }
}
