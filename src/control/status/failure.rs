//! Why a request to the API server has failed.

use std::time::Duration;

use kube::Error;
use tokio::time::timeout;

/// Why a request has failed.
#[derive(Debug)]
pub(super) enum RequestFailure {
    /// The server has refused it, or there was no way to it.
    Refused(Error),
    /// There was no answer in time.
    NoAnswer,
}

/// The answer, unless it takes longer than `within`.
pub(super) async fn answered<T>(
    within: Duration,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, RequestFailure> {
    match timeout(within, request).await {
        Ok(result) => result.map_err(RequestFailure::Refused),
        Err(_) => Err(RequestFailure::NoAnswer),
    }
}

impl RequestFailure {
    /// The code of the server's answer, if there was one.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            RequestFailure::Refused(Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        match self {
            RequestFailure::Refused(error) => error.to_string(),
            RequestFailure::NoAnswer => "no answer".to_owned(),
        }
    }

    /// Whether the namespace is gone, or about to go, so that nothing more is written there.
    pub(super) fn is_of_a_namespace_that_ends(&self) -> bool {
        let RequestFailure::Refused(Error::Api(status)) = self else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.code == 404 || causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}
