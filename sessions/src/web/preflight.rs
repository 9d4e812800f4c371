//! What a browser asks before it sends a request to another site.

use http::{HeaderMap, Method, header};

/// Whether this is a CORS preflight (WHATWG Fetch, 3.3.2 and 4.8): `OPTIONS` with an `Origin` and the
/// method that is asked for. Browsers send it without cookies, and show its answer to no page.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
