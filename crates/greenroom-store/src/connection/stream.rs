//! The negotiation of TLS, and a stream that never sends a password in cleartext to another machine.
//!
//! tokio-postgres negotiates TLS itself, but then nothing could inspect a stream without TLS. It is
//! therefore told that the connection begins with the handshake, and [`Negotiation`] negotiates.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{TlsMode, TlsSettings};
use super::url::Settings;

/// PostgreSQL's `SSLRequest`: its length, and the code 80877103.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// PostgreSQL's `AuthenticationCleartextPassword`: its type, its length, and the code 3.
const CLEARTEXT_PASSWORD_REQUEST: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];

type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
type RustlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;

/// How the connections to a server are secured.
#[derive(Clone)]
pub(super) struct Security {
    /// `None` means that TLS is disabled.
    pub(super) tls: Option<MakeRustlsConnect>,
    /// Whether the connection continues without TLS if the server offers none.
    pub(super) is_optional: bool,
    /// Whether the connection begins with the handshake.
    pub(super) is_direct: bool,
    /// Whether the server is another machine.
    pub(super) is_remote: bool,
}

/// The negotiation on one connection.
pub(super) struct Negotiation {
    tls: Option<RustlsConnect>,
    is_optional: bool,
    is_direct: bool,
    is_remote: bool,
}

impl Security {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// Returns a sentence if a file cannot be used, or if no authority is trusted.
    pub(super) fn of(settings: &Settings) -> Result<Self, String> {
        let TlsSettings { mode, is_direct, .. } = settings.tls;
        let tls = settings.tls.client_config()?.map(MakeRustlsConnect::new);
        Ok(Self { tls, is_optional: mode == TlsMode::Prefer, is_direct, is_remote: false })
    }
}

impl MakeTlsConnect<Socket> for Security {
    type Stream = SecureStream;
    type TlsConnect = Negotiation;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Negotiation, Infallible> {
        let tls = match &mut self.tls {
            Some(tls) => Some(MakeTlsConnect::<Socket>::make_tls_connect(tls, host)?),
            None => None,
        };
        let Self { is_optional, is_direct, is_remote, .. } = *self;
        Ok(Negotiation { tls, is_optional, is_direct, is_remote })
    }
}

impl TlsConnect<Socket> for Negotiation {
    type Stream = SecureStream;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<SecureStream, Self::Error>>;

    fn connect(self, socket: Socket) -> Self::Future {
        self.negotiate(socket).boxed()
    }
}

impl Negotiation {
    async fn negotiate(
        self,
        mut socket: Socket,
    ) -> Result<SecureStream, Box<dyn Error + Send + Sync>> {
        let plain =
            |socket| SecureStream::Plain(Plain { socket, inspected: 0, is_remote: self.is_remote });
        let Some(tls) = self.tls else { return Ok(plain(socket)) };
        if !self.is_direct {
            socket.write_all(&TLS_REQUEST).await?;
            match socket.read_u8().await? {
                b'S' => {}
                b'N' if self.is_optional => return Ok(plain(socket)),
                b'N' => return Err("the server does not offer TLS".into()),
                _ => return Err("the server is not PostgreSQL".into()),
            }
        }
        Ok(SecureStream::Tls(Box::new(tls.connect(socket).await?)))
    }
}

/// A connection to PostgreSQL, with or without TLS.
pub(super) enum SecureStream {
    Plain(Plain),
    Tls(Box<RustlsStream>),
}

/// A connection without TLS.
pub(super) struct Plain {
    socket: Socket,
    /// The number of bytes at the beginning that were equal to [`CLEARTEXT_PASSWORD_REQUEST`].
    /// `usize::MAX` after another byte.
    inspected: usize,
    is_remote: bool,
}

impl Plain {
    /// Refuses a request of the server to send the password in cleartext. It can only be the first
    /// message.
    fn inspect(&mut self, received: &[u8]) -> io::Result<()> {
        for byte in received {
            match CLEARTEXT_PASSWORD_REQUEST.get(self.inspected) {
                Some(expected) if expected == byte => self.inspected += 1,
                _ => self.inspected = usize::MAX,
            }
            if self.inspected == usize::MAX {
                return Ok(());
            }
        }
        if self.inspected == CLEARTEXT_PASSWORD_REQUEST.len() && self.is_remote {
            return Err(io::Error::other(
                "the server asks for the password in cleartext, and the connection has no TLS",
            ));
        }
        Ok(())
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Plain(plain) => {
                let begin = buffer.filled().len();
                ready!(Pin::new(&mut plain.socket).poll_read(cx, buffer))?;
                if plain.inspected < CLEARTEXT_PASSWORD_REQUEST.len() {
                    plain.inspect(&buffer.filled()[begin..])?;
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for SecureStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Plain(plain) => Pin::new(&mut plain.socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(plain) => Pin::new(&mut plain.socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(plain) => Pin::new(&mut plain.socket).poll_shutdown(cx),
        }
    }
}

impl TlsStream for SecureStream {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Tls(stream) => stream.channel_binding(),
            Self::Plain(_) => ChannelBinding::none(),
        }
    }
}
