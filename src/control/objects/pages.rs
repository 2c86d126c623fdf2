//! Requests lists in pages.

use http_body_util::BodyExt;
use hyper::{Request, Response};
use kube::api::ListParams;
use kube::client::Body;
use kube::core::{Request as ResourceRequest, Status};
use kube::{Client, Error};

use super::page::PageReader;
use super::{Extent, ObjectText};

/// The number of objects on the first page: few, because their size is not known yet.
const FIRST_LIMIT: u32 = 20;
/// The maximum number of objects on a page.
const MAX_LIMIT: u32 = 500;
/// The maximum growth from one page to the next, as a factor.
const GROWTH: u32 = 5;
/// The intended size of a page in bytes, estimated from the sizes of earlier objects. The server keeps a
/// whole page in memory, and must send it within a minute.
const PAGE_BYTES: u64 = 8 << 20;
/// The maximum number of bytes to read of an error's text.
const MAX_ERROR: usize = 64 << 10;

/// A list of all objects of a kind, requested in pages and read object by object. Only the object that is
/// arriving is kept in memory.
pub(in crate::control) struct Pages {
    client: Client,
    resource: ResourceRequest,
    extent: Extent,
    limit: u32,
    token: Option<String>,
    page: Option<OpenPage>,
    version: Option<String>,
    is_over: bool,
}

/// A page that is arriving.
struct OpenPage {
    body: Body,
    reader: PageReader,
    items: u32,
    bytes: u64,
}

impl Pages {
    /// A list of the objects at this path, such as `/api/v1/services`.
    pub(in crate::control) fn new(client: Client, path: &str, extent: Extent) -> Self {
        Pages {
            client,
            resource: ResourceRequest::new(path),
            extent,
            limit: FIRST_LIMIT,
            token: None,
            page: None,
            version: None,
            is_over: false,
        }
    }

    /// The next object; `None` after the last one.
    ///
    /// # Errors
    /// When the server refuses the request, or the answer is incomplete. The content of an object never
    /// causes an error.
    pub(in crate::control) async fn next(&mut self) -> Result<Option<ObjectText>, Error> {
        while !self.is_over {
            let page = match &mut self.page {
                Some(page) => page,
                None => {
                    let page = self.open().await?;
                    self.page.insert(page)
                }
            };
            if let Some(item) = page.next().await? {
                return Ok(Some(match self.extent {
                    Extent::Whole => item,
                    Extent::Metadata => item.reduce(),
                }));
            }
            self.limit = next_limit(self.limit, page.items, page.bytes);
            self.version = page.reader.metadata("resourceVersion");
            self.token = page.reader.metadata("continue");
            self.is_over = self.token.is_none();
            self.page = None;
        }
        Ok(None)
    }

    /// The `resourceVersion` of the list, once, after its end.
    pub(in crate::control) fn take_version(&mut self) -> Option<String> {
        let is_over = self.is_over;
        self.version.take_if(|_| is_over)
    }

    async fn open(&mut self) -> Result<OpenPage, Error> {
        let mut params = ListParams::default().limit(self.limit);
        params.continue_token.clone_from(&self.token);
        let request = match self.extent {
            Extent::Whole => self.resource.list(&params),
            Extent::Metadata => self.resource.list_metadata(&params),
        };
        let request = request.map_err(Error::BuildRequest)?;
        let body = open(&self.client, request).await?.into_body();
        Ok(OpenPage { body, reader: PageReader::default(), items: 0, bytes: 0 })
    }
}

impl OpenPage {
    async fn next(&mut self) -> Result<Option<ObjectText>, Error> {
        loop {
            match self.reader.next_item() {
                Ok(Some(item)) => {
                    self.items += 1;
                    return Ok(Some(item));
                }
                Ok(None) if self.reader.is_over() => return Ok(None),
                Ok(None) => {}
                Err(error) => return Err(Error::Service(error.into())),
            }
            let Some(frame) = self.body.frame().await else {
                return Err(Error::Service("the list breaks off".into()));
            };
            if let Some(bytes) = frame?.data_ref() {
                self.bytes += bytes.len() as u64;
                self.reader.push(bytes);
            }
        }
    }
}

/// The size of the next page, after a page of `items` objects and `bytes` bytes that was requested with
/// `limit`.
fn next_limit(limit: u32, items: u32, bytes: u64) -> u32 {
    let each = bytes / u64::from(items.max(1));
    let fitting = u32::try_from(PAGE_BYTES / each.max(1)).unwrap_or(MAX_LIMIT);
    fitting.clamp(1, MAX_LIMIT).min(limit.saturating_mul(GROWTH))
}

/// Sends a request.
///
/// # Errors
/// When it cannot be sent, or the server refuses it.
pub(in crate::control) async fn open(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<Response<Body>, Error> {
    let answer = client.send(request.map(Body::from)).await?;
    let code = answer.status();
    if !code.is_client_error() && !code.is_server_error() {
        return Ok(answer);
    }
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while text.len() < MAX_ERROR
        && let Some(Ok(frame)) = body.frame().await
    {
        text.extend_from_slice(frame.data_ref().map(|bytes| &bytes[..]).unwrap_or_default());
    }
    let status: Status = serde_json::from_slice(&text).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&text);
        Status::failure(text.trim(), "").with_code(code.as_u16())
    });
    Err(Error::Api(status.boxed()))
}

/// Sends a request, and discards the answer after reading all of it, so that the connection can be reused
/// and the content of the returned object does not matter.
///
/// # Errors
/// When it cannot be sent, or the server refuses it.
pub(in crate::control) async fn send(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<(), Error> {
    let mut body = open(client, request).await?.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// Sends a request, and returns the object in the answer.
///
/// # Errors
/// When it cannot be sent, the server refuses it, or the answer is incomplete.
pub(in crate::control) async fn fetch(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<ObjectText, Error> {
    let body = open(client, request).await?.into_body();
    Ok(ObjectText::new(&body.collect().await?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_small_objects_grow_and_those_of_large_ones_shrink() {
        let small = 1200;
        let mut limits = vec![FIRST_LIMIT];
        for _ in 0..3 {
            let limit = limits[limits.len() - 1];
            limits.push(next_limit(limit, limit, u64::from(limit) * small));
        }
        assert_eq!(limits, [20, 100, 500, 500]);
        let large = 1_400_000;
        assert_eq!(next_limit(500, 500, 500 * large), 5);
        assert_eq!(next_limit(20, 20, 20 * large), 5);
        assert_eq!(next_limit(5, 5, 5 * small), 25);
        assert_eq!(next_limit(500, 1, 100 << 20), 1);
        assert_eq!(next_limit(20, 0, 100), 100);
        assert_eq!(next_limit(20, 0, 0), 100);
    }
}
