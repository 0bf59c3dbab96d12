//! Requests to operations of an OpenAPI document: what does not fit is refused before anybody is asked to answer it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use davit_api::{ApiError, ErrorCode};
use davit_daemon::courtesy;
use davit_openapi::{Body as Wanted, Head, Media, Refusal};
use http::Request;
use http_body::Body as _;

use crate::event::query::pairs;
use crate::http::address::{most, read};
use crate::http::{Body, COURTESY_BYTES};
use crate::policy::Contract;
use crate::routes::Found;

/// Larger bodies are checked apart from the lane that other requests wait for.
const APART_BYTES: usize = 8 * 1024;

/// Holds a request to the operation that its route is. A body that had to be read is in it afterwards, whole; its length is
/// told.
pub(super) async fn hold(
    request: Request<Body>,
    found: &Found,
    contract: &Arc<Contract>,
    deadline: Instant,
) -> Result<(Request<Body>, usize), ApiError> {
    let Some(rules) = contract.rules()? else { return Ok((request, 0)) };
    let query = request.uri().query().filter(|_| rules.wants_query()).map(pairs).unwrap_or_default();
    let has_body = !request.body().is_end_stream();
    let head = Head { path: &found.params, query: &query, headers: request.headers(), has_body };
    let media = match rules.head(head) {
        Ok(Wanted::Unread) => return Ok((request, 0)),
        Ok(Wanted::Json(media)) => media,
        Err(refusal) => {
            if has_body {
                // So that the client, which may be sending still, sees the answer.
                courtesy::hear_out(&mut request.into_body(), COURTESY_BYTES).await;
            }
            return Err(refused(refusal, contract));
        }
    };
    let (parts, body) = request.into_parts();
    let bytes = read(body, most(found), deadline).await?;
    check(contract, media, &bytes).await?;
    let length = bytes.len();
    Ok((Request::from_parts(parts, Body::full(bytes)), length))
}

async fn check(contract: &Arc<Contract>, media: Media, bytes: &Bytes) -> Result<(), ApiError> {
    let checked = move |contract: &Contract, bytes: &[u8]| match contract.rules()? {
        Some(rules) => rules.body(media, bytes).map_err(|refusal| refused(refusal, contract)),
        None => Ok(()),
    };
    if bytes.len() <= APART_BYTES {
        return checked(contract, bytes);
    }
    let (contract, bytes) = (contract.clone(), bytes.clone());
    let apart = tokio::task::spawn_blocking(move || checked(&contract, &bytes));
    apart.await.map_err(|_| ApiError::new(ErrorCode::Internal, "the body could not be checked"))?
}

fn refused(refusal: Refusal, contract: &Contract) -> ApiError {
    let ApiError { code, message } = refusal.into();
    ApiError::new(code, format!("the request does not fit {}: {message}", contract.operation()))
}
