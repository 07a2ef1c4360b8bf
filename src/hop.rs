//! Header fields that belong to one hop of a message and stay there (RFC 9110, section 7.6.1). Pure.

use http::{HeaderMap, HeaderName, header};

/// Fields of one hop, whether or not `Connection` names them.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// Fields that `Connection` must not name; a request that does so anyway means to confuse somebody further on.
const END_TO_END: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION];

/// Takes out what belongs to the hop that a message came over.
pub(crate) fn strip(fields: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| HeaderName::from_bytes(token.trim().as_bytes()).ok())
        .filter(|name| !END_TO_END.contains(name))
        .collect();
    for name in nominated.iter().chain(&HOP_BY_HOP) {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn names(fields: &HeaderMap) -> Vec<&str> {
        fields.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn what_belongs_to_one_hop_stays_there() {
        let mut map = fields(&[
            ("connection", "close, X-Trace , keep-alive"),
            ("x-trace", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "close"),
            ("range", "bytes=0-1"),
        ]);
        strip(&mut map);
        assert_eq!(names(&map), ["range"]);
    }

    #[test]
    fn connection_cannot_take_away_what_the_provider_needs() {
        let mut map = fields(&[("connection", "host, authorization"), ("host", "a"), ("authorization", "b")]);
        strip(&mut map);
        assert_eq!((map.len(), &map["host"]), (2, &HeaderValue::from_static("a")));
    }
}
