//! What holds for requests to an address besides who may call: made once from a version's settings, when the routes are
//! read, and asked for each request to it. Addresses without any have no policy, and nothing here costs them anything.

mod contract;
mod cors;
mod encode;
mod encoder;
mod fields;
mod pages;
mod rate;
mod route;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use davit_api::{Access, FunctionId, HttpSettings, RouteSpec, TokenId, VersionSpec};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};

use crate::http::Body;

pub(crate) use contract::Contract;
pub(crate) use cors::preflight_method;
pub(crate) use encoder::Encoder;
pub(crate) use pages::Own;
pub use rate::Limiters;
pub use route::Route;

use self::contract::Document;
use self::cors::Cors;
use self::encode::Encoding;
use self::fields::Changes;
use self::pages::Page;
use self::rate::{Caller, Limiter};

/// What holds for requests to one address, or to all addresses of a version that have nothing of their own.
#[derive(Debug, PartialEq)]
pub struct Policy {
    /// Who may call, in place of the version's.
    pub access: Option<Access>,
    /// Time budget in seconds, in place of the version's.
    pub timeout_seconds: Option<u32>,
    /// What of the path the function does not see.
    pub strip: Option<HeaderValue>,
    /// What it sees in front of the rest.
    pub add: Option<Box<str>>,
    /// Largest body of a request.
    pub max_request_bytes: Option<u64>,
    /// What the operation that the route is asks of requests.
    pub(crate) contract: Option<Arc<Contract>>,
    cors: Option<Cors>,
    limiter: Option<Arc<Limiter>>,
    compression: bool,
    request_headers: Changes,
    response_headers: Changes,
    pages: Box<[Page]>,
}

/// What of a request decides how its answer is finished.
pub(crate) struct Asked {
    origin: Option<HeaderValue>,
    encoding: Option<Encoding>,
    to_head: bool,
}

impl Asked {
    /// Reads it off a request.
    pub(crate) fn of(request: &Request<Body>) -> Self {
        let headers = request.headers();
        Self {
            origin: headers.get(header::ORIGIN).cloned(),
            encoding: encode::accepted(headers),
            to_head: *request.method() == Method::HEAD,
        }
    }
}

impl Policy {
    /// The policy of a version's addresses that have nothing of their own; none when nothing is set.
    pub fn of_function(function: FunctionId, spec: &VersionSpec, limiters: &Limiters) -> Option<Arc<Self>> {
        let settings = spec.http.as_deref().filter(|settings| **settings != HttpSettings::default())?;
        Some(Arc::new(Self::new(settings, limiters.of_function(function, settings))))
    }

    /// The policy of a route; none when nothing is set for it or its function.
    pub(crate) fn of_route(
        function: FunctionId,
        spec: &VersionSpec,
        route: &RouteSpec,
        contract: Option<Arc<Contract>>,
        limiters: &Limiters,
    ) -> Option<Arc<Self>> {
        let nothing = HttpSettings::default();
        let (general, own) = (spec.http.as_deref().unwrap_or(&nothing), route.http.as_deref());
        let settings = own.map_or_else(|| general.clone(), |own| own.over(general));
        let RouteSpec { access, timeout_seconds, strip_prefix, add_prefix, .. } = route;
        let moved = strip_prefix.is_some() || add_prefix.is_some();
        let own_settings = access.is_some() || timeout_seconds.is_some() || moved || contract.is_some();
        if settings == nothing && !own_settings {
            return None;
        }
        // A limit that the route does not change is the function's, and its calls count there.
        let limiter = match own.and_then(|own| own.rate_limit) {
            Some(limit) => Some(limiters.of_route(function, route, limit)),
            None => limiters.of_function(function, general),
        };
        let strip = strip_prefix.as_ref().and_then(|prefix| HeaderValue::from_str(prefix.as_str()).ok());
        Some(Arc::new(Self {
            access: *access,
            timeout_seconds: *timeout_seconds,
            strip,
            add: add_prefix.as_ref().map(|prefix| prefix.as_str().into()),
            contract,
            ..Self::new(&settings, limiter)
        }))
    }

    fn new(settings: &HttpSettings, limiter: Option<Arc<Limiter>>) -> Self {
        Self {
            access: None,
            timeout_seconds: None,
            strip: None,
            add: None,
            max_request_bytes: settings.max_request_bytes,
            contract: None,
            cors: settings.cors.as_ref().map(Cors::new),
            limiter,
            compression: settings.compression.unwrap_or(false),
            request_headers: Changes::of(settings.request_headers.as_ref()),
            response_headers: Changes::of(settings.response_headers.as_ref()),
            pages: settings.error_pages.iter().map(Page::new).collect(),
        }
    }

    /// The headers of the answer to a preflight, or why a page there may not call. None when the function answers
    /// preflights itself.
    pub(crate) fn preflight(&self, request: &HeaderMap) -> Option<Result<HeaderMap, String>> {
        self.cors.as_ref().map(|cors| cors.preflight(request))
    }

    /// Counts a call; when it is one too many, says after which time there is room for another.
    pub(crate) fn admit(&self, client: IpAddr, token: Option<TokenId>) -> Result<(), Duration> {
        self.limiter.as_ref().map_or(Ok(()), |limiter| limiter.admit(Caller { client, token }))
    }

    /// What the function gets of a request's headers.
    pub(crate) fn change_request(&self, headers: &mut HeaderMap) {
        self.request_headers.apply(headers);
    }

    /// Makes an answer, of the function or of the gateway, what the caller gets.
    pub(crate) fn finish(&self, mut response: Response<Body>, asked: &Asked) -> Response<Body> {
        pages::put(&self.pages, &mut response);
        if self.compression {
            response = encode::encode(response, asked.encoding, asked.to_head);
        }
        self.response_headers.apply(response.headers_mut());
        if let Some(cors) = &self.cors {
            cors.mark(asked.origin.as_ref(), response.headers_mut());
        }
        response
    }
}
