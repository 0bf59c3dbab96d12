//! Bodies in place of the gateway's own JSON.

use bytes::Bytes;
use davit_api::{ErrorCode, ErrorPage};
use http::{HeaderName, HeaderValue, Response, header};

use crate::http::Body;

/// Marks an answer as the gateway's own, by the error that it carries: what a function answers is never replaced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own(pub(crate) ErrorCode);

/// Which error it was: the page does not say it in a way that programs could read.
const CODE: HeaderName = HeaderName::from_static("x-davit-error");

/// A page, ready to be sent.
#[derive(Debug, PartialEq)]
pub(super) struct Page {
    statuses: Box<[u16]>,
    content_type: HeaderValue,
    body: Bytes,
}

impl Page {
    pub(super) fn new(page: &ErrorPage) -> Self {
        let content_type = HeaderValue::from_str(page.content_type());
        Self {
            statuses: page.statuses.clone().into(),
            content_type: content_type.unwrap_or(HeaderValue::from_static("text/html; charset=utf-8")),
            body: Bytes::copy_from_slice(page.body.as_bytes()),
        }
    }
}

/// Puts the page for an answer's status, if there is one, in the place of the gateway's own body.
pub(super) fn put(pages: &[Page], response: &mut Response<Body>) {
    if pages.is_empty() {
        return;
    }
    let Some(Own(code)) = response.extensions().get::<Own>().copied() else { return };
    let status = response.status().as_u16();
    let Some(page) = pages.iter().find(|page| page.statuses.contains(&status)) else { return };
    *response.body_mut() = Body::full(page.body.clone());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, page.content_type.clone());
    headers.insert(CODE, HeaderValue::from_static(code.as_str()));
}
