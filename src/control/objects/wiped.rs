//! Requests an object that is a secret, and memory for what may be one.

use http_body_util::BodyExt;
use hyper::Request;
use kube::client::Body;
use kube::{Client, Error};
use zeroize::{Zeroize, Zeroizing};

use super::open;

/// The longest object that is read. An API server stores none that is longer.
const LONGEST: usize = 8 << 20;

/// Sends a request, and returns the object in the answer, in memory that is wiped when it is dropped. The buffers of the
/// HTTP client and of TLS are not sluice's, and are not wiped.
///
/// # Errors
/// When it cannot be sent, the server refuses it, or the answer is incomplete.
pub(in crate::control) async fn fetch_wiped(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    collect(open(client, request).await?.into_body()).await
}

async fn collect(mut body: Body) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut whole = Zeroizing::new(Vec::with_capacity(8 << 10));
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame?.into_data() else { continue };
        let length = whole.len().saturating_add(part.len());
        if length > LONGEST {
            return Err(Error::Service("the object is too long".into()));
        }
        extend_wiped(&mut whole, &part);
        // Unless the HTTP client still uses it.
        if let Ok(mut part) = part.try_into_mut() {
            part.as_mut().zeroize();
        }
    }
    Ok(whole)
}

/// Adds `more`. If that needs more room, the former memory is wiped: a vector that grows by itself leaves it as it is.
pub(in crate::control) fn extend_wiped<T: Copy + Zeroize>(
    whole: &mut Zeroizing<Vec<T>>,
    more: &[T],
) {
    let length = whole.len().saturating_add(more.len());
    if length > whole.capacity() {
        let room = length.max(whole.capacity().saturating_mul(2));
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(whole);
        *whole = larger;
    }
    whole.extend_from_slice(more);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::StreamBody;
    use hyper::Response;
    use hyper::body::{Bytes, Frame};
    use tower::service_fn;

    use super::*;

    /// Counts how often it is wiped.
    #[derive(Clone, Copy)]
    struct Counted<'c>(&'c std::cell::Cell<usize>);

    impl Zeroize for Counted<'_> {
        fn zeroize(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn memory_is_wiped_when_it_grows() {
        let wiped = std::cell::Cell::new(0);
        let mut whole = Zeroizing::new(Vec::with_capacity(10));
        extend_wiped(&mut whole, &[Counted(&wiped); 10]);
        assert_eq!(wiped.get(), 0);
        extend_wiped(&mut whole, &[Counted(&wiped)]);
        assert_eq!((wiped.get(), whole.len(), whole.capacity()), (10, 11, 20));
        drop(whole);
        assert_eq!(wiped.get(), 21);
    }

    async fn answered(parts: Vec<usize>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let answer = move |_: Request<Body>| {
            let parts: Vec<_> =
                parts.iter().map(|length| Bytes::from(vec![b'x'; *length])).collect();
            let frames = parts.into_iter().map(|part| Ok::<_, std::io::Error>(Frame::data(part)));
            let body = StreamBody::new(futures::stream::iter(frames));
            async move { Ok::<_, std::convert::Infallible>(Response::new(body)) }
        };
        let client = Client::new(service_fn(answer), "default");
        fetch_wiped(&client, Request::get("/a").body(Vec::new()).unwrap()).await
    }

    #[tokio::test]
    async fn an_object_arrives_in_any_number_of_parts_and_is_bounded() {
        assert_eq!(answered(vec![]).await.unwrap().len(), 0);
        let whole = answered(vec![1, 8 << 10, 100, 1 << 20]).await.unwrap();
        assert_eq!(*whole, vec![b'x'; 1 + (8 << 10) + 100 + (1 << 20)]);
        assert!(answered(vec![1 << 20; 9]).await.is_err());
    }
}
