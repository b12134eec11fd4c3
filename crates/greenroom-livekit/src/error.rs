//! Errors of calls to LiveKit, classified by what the caller can do.

use greenroom_domain::ErrorChain;

/// The failure of a call to LiveKit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LiveKitError {
    /// LiveKit is unreachable or overloaded. A later call may succeed.
    #[error("LiveKit is unavailable: {0}")]
    Unavailable(String),
    /// LiveKit responded that no node has the room: the room does not exist, or its node is gone.
    #[error("no LiveKit node responds for the room: {0}")]
    NoNode(String),
    /// LiveKit did not respond in time. The call may have taken effect.
    #[error("LiveKit did not respond in time")]
    Timeout,
    /// The room, or the dispatch in it, does not exist.
    #[error("the room or the dispatch does not exist in LiveKit")]
    NotFound,
    /// LiveKit refused the request, for example because of a wrong key, or the response is invalid.
    #[error("LiveKit refused the request or sent an invalid response: {0}")]
    Refused(String),
    /// The response is larger than 8 MiB, and was not read completely.
    #[error("the response of LiveKit is larger than 8 MiB")]
    TooLarge,
}

impl LiveKitError {
    /// Returns whether LiveKit, or the room's node, is unreachable, overloaded or too slow. If not,
    /// LiveKit responded with an error.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoNode(_) | Self::Timeout)
    }

    /// Converts the error of a request without a response. Omits the URL, which the configuration
    /// contains. A response that is not HTTP is [`Self::Refused`].
    pub(crate) fn transport(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        let error = error.without_url();
        let chain = ErrorChain(&error);
        let is_not_http = chain
            .iter()
            .any(|error| error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse));
        let message = chain.to_string();
        if is_not_http { Self::Refused(message) } else { Self::Unavailable(message) }
    }

    /// Converts the error of a response body that is incomplete.
    pub(crate) fn incomplete_response(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        Self::Unavailable(format!("the response is incomplete: {}", error.without_url()))
    }

    /// Converts the HTTP status of a failed call. `message` contains the Twirp code and message, if
    /// the body has them.
    ///
    /// Proxies in front of LiveKit send 502 and 504, and LiveKit Cloud sends 429.
    pub(crate) fn status(status: u16, message: String) -> Self {
        match status {
            429 | 502..=504 => Self::Unavailable(message),
            408 => Self::Timeout,
            _ => Self::Refused(message),
        }
    }
}
