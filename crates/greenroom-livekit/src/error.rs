//! What can go wrong with LiveKit, by what the caller can do about it.

use std::error::Error;

/// A call to LiveKit that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LiveKitError {
    /// Nobody answers there: later it may go.
    #[error("LiveKit is unavailable: {0}")]
    Unavailable(String),
    /// LiveKit answers, and none of its nodes does for the room: it is not there, or its node is gone.
    #[error("none of LiveKit's nodes answers for the room: {0}")]
    NoNode(String),
    /// No answer in time; what was asked for may have happened or not.
    #[error("LiveKit did not answer in time")]
    Timeout,
    /// The room, or what was in it, is not there.
    #[error("LiveKit knows no such room")]
    NotFound,
    /// It answered with a refusal, such as of a bad key, or with something that makes no sense.
    #[error("LiveKit answered with an error: {0}")]
    Refused(String),
}

impl LiveKitError {
    /// Of a request that found no answer. The URL is left out: it is in the configuration.
    pub(crate) fn transport(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        let error = error.without_url();
        let (mut told, mut is_http) = (error.to_string(), true);
        let mut cause = error.source();
        while let Some(error) = cause {
            told = format!("{told}: {error}");
            is_http &= !error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
            cause = error.source();
        }
        if is_http { Self::Unavailable(told) } else { Self::Refused(told) }
    }

    /// Of an answer that ended before its end.
    pub(crate) fn broken_off(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        Self::Unavailable(format!("it broke off its answer: {}", error.without_url()))
    }

    /// Of a Twirp error: its HTTP status, and its code and message when the body had them.
    ///
    /// 502 and 504 come from proxies before LiveKit; 429 from LiveKit Cloud.
    pub(crate) fn status(status: u16, message: String) -> Self {
        match status {
            429 | 502..=504 => Self::Unavailable(message),
            408 => Self::Timeout,
            _ => Self::Refused(message),
        }
    }
}
