//! The head of a CGI response (RFC 3875, section 6): header lines up to an empty one, with the status among them. Pure.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, response};

/// Longest head; git's have a few hundred bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

/// Reads a head from the beginning of what a CGI program wrote so far. `None`: there has to come more.
///
/// # Errors
/// It is no head, or a longer one than [`HEAD_BYTES_MAX`].
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<(response::Parts, usize)>, String> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let (length, lines) = match httparse::parse_headers(bytes, &mut slots).map_err(|error| error.to_string())? {
        httparse::Status::Complete(found) => found,
        httparse::Status::Partial if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        httparse::Status::Partial => return Err(format!("more than {HEAD_BYTES_MAX} bytes")),
    };
    let (mut status, mut headers) = (StatusCode::OK, HeaderMap::new());
    for line in lines {
        if line.name.eq_ignore_ascii_case("status") {
            status = line.value.get(..3).and_then(|code| StatusCode::from_bytes(code).ok()).ok_or("a wrong status")?;
            continue;
        }
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|error| error.to_string())?;
        headers.append(name, HeaderValue::from_bytes(line.value).map_err(|error| error.to_string())?);
    }
    let (mut parts, ()) = http::Response::new(()).into_parts();
    (parts.status, parts.headers) = (status, headers);
    Ok(Some((parts, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_the_empty_line_and_carries_the_status() {
        let bytes = b"Status: 404 Not Found\r\nCache-Control: no-cache\r\nPragma: x\r\n\r\nbody";
        let (parts, length) = parse_head(bytes).unwrap().unwrap();
        assert_eq!((parts.status, &bytes[length..]), (StatusCode::NOT_FOUND, &b"body"[..]));
        assert_eq!(parts.headers["cache-control"], "no-cache");
        assert!(!parts.headers.contains_key("status"));
        assert_eq!(parse_head(b"A: b\n\n").unwrap().unwrap().0.status, StatusCode::OK);
    }

    #[test]
    fn half_a_head_waits_and_an_endless_one_does_not() {
        assert!(parse_head(b"Content-Type: te").unwrap().is_none());
        assert!(parse_head(&vec![b'a'; HEAD_BYTES_MAX]).is_err());
        assert!(parse_head(b"Status: abc\r\n\r\n").is_err());
        assert!(parse_head(b"no colon\r\n\r\n").is_err());
    }
}
