//! When an origin says that it may be asked again (RFC 9110, section 10.2.3). Pure.

use std::time::{Duration, SystemTime};

use headers::{Date, Header, HeaderMapExt};
use http::{HeaderMap, StatusCode, header};

use crate::provider::UpdateError;

/// How long an origin is left alone that has been asked too often and does not say for how long.
const PAUSE_DEFAULT: Duration = Duration::from_secs(60);

/// What a status of an origin means that has to do with how often it is asked, if it does: 429 always, 403 and 503 if they
/// say when to come back.
pub(crate) fn asks_for_patience(status: StatusCode, fields: &HeaderMap) -> Option<UpdateError> {
    let said = retry_after(fields);
    let after = match status {
        StatusCode::TOO_MANY_REQUESTS => said.unwrap_or(PAUSE_DEFAULT),
        StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE => said?,
        _ => return None,
    };
    Some(UpdateError::Later { reason: format!("the origin answered {status}"), after })
}

/// The time in `Retry-After`. A date counts from the origin's own clock, so that a wrong one does no harm.
fn retry_after(fields: &HeaderMap) -> Option<Duration> {
    let value = fields.get(header::RETRY_AFTER)?;
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at: SystemTime = Date::decode(&mut std::iter::once(value)).ok()?.into();
    let now: SystemTime = fields.typed_get::<Date>()?.into();
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(status: u16, fields: &[(&'static str, &'static str)]) -> Option<u64> {
        let fields = fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        match asks_for_patience(StatusCode::from_u16(status).unwrap(), &fields.collect())? {
            UpdateError::Later { after, .. } => Some(after.as_secs()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_origin_says_when_to_come_back_in_seconds_or_by_a_date() {
        assert_eq!(asked(403, &[("retry-after", "30")]), Some(30));
        assert_eq!(asked(503, &[("retry-after", "0")]), Some(0));
        assert_eq!(asked(429, &[("retry-after", "99999999999999999999999")]), Some(u64::MAX));
        let at = [("retry-after", "Thu, 01 Jan 2026 00:01:30 GMT"), ("date", "Thu, 01 Jan 2026 00:00:00 GMT")];
        assert_eq!(asked(503, &at), Some(90));
        let past = [("retry-after", "Thu, 01 Jan 2026 00:00:00 GMT"), ("date", "Thu, 01 Jan 2026 00:01:30 GMT")];
        assert_eq!(asked(503, &past), Some(0));
    }

    #[test]
    fn without_that_only_a_status_that_means_nothing_else_asks_for_patience() {
        assert_eq!(asked(429, &[]), Some(60));
        for status in [200, 401, 403, 404, 500, 503] {
            assert_eq!(asked(status, &[("retry-after", "soon")]), None, "{status}");
        }
        assert_eq!(asked(404, &[("retry-after", "30")]), None);
    }
}
