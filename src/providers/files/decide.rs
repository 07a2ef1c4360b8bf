//! What a request for an object gets: all of it, a part, or a reason why not (RFC 9110, sections 13 and 14). Pure.
//!
//! Preconditions are taken in the order of section 13.2.2. A request for several ranges, which is allowed to be answered
//! with the whole, is.

use std::{ops::Range, time::SystemTime};

use headers::{
    ETag, HeaderMap, HeaderMapExt, IfMatch, IfModifiedSince, IfNoneMatch, IfRange, IfUnmodifiedSince, LastModified,
};
use http::{Method, header};

/// What is known of an object.
pub(crate) struct Validators {
    /// In bytes.
    pub(crate) size: u64,
    /// Strong.
    pub(crate) etag: ETag,
    /// `None` if the origin does not say: then no condition about it can hold or fail.
    pub(crate) modified: Option<SystemTime>,
}

/// The answer to a GET or HEAD.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 200.
    Whole,
    /// 206, and these bytes.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    RangeNotSatisfiable,
}

/// Decides for a GET or HEAD with these headers.
pub(crate) fn decide(method: &Method, headers: &HeaderMap, object: &Validators) -> Answer {
    if let Some(failed) = precondition(headers, object) {
        return failed;
    }
    let modified = object.modified.map(LastModified::from);
    let unchanged = |condition: IfRange| !condition.is_modified(Some(&object.etag), modified.as_ref());
    // A condition that cannot be read is one that does not hold.
    let fresh = !headers.contains_key(header::IF_RANGE) || headers.typed_get::<IfRange>().is_some_and(unchanged);
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    match asked.and_then(parse_range) {
        Some(range) if *method == Method::GET && fresh => {
            range.within(object.size).map_or(Answer::RangeNotSatisfiable, Answer::Part)
        }
        _ => Answer::Whole,
    }
}

fn precondition(headers: &HeaderMap, object: &Validators) -> Option<Answer> {
    if let Some(condition) = headers.typed_get::<IfMatch>() {
        if !condition.precondition_passes(&object.etag) {
            return Some(Answer::PreconditionFailed);
        }
    } else if let Some(condition) = headers.typed_get::<IfUnmodifiedSince>()
        && object.modified.is_some_and(|modified| !condition.precondition_passes(modified))
    {
        return Some(Answer::PreconditionFailed);
    }
    if let Some(condition) = headers.typed_get::<IfNoneMatch>() {
        return (!condition.precondition_passes(&object.etag)).then_some(Answer::NotModified);
    }
    let since = headers.typed_get::<IfModifiedSince>()?;
    (!since.is_modified(object.modified?)).then_some(Answer::NotModified)
}

/// One range as it was asked for, both ends included.
#[derive(Debug, Clone, Copy)]
enum Asked {
    From(u64, Option<u64>),
    Last(u64),
}

impl Asked {
    fn within(self, size: u64) -> Option<Range<u64>> {
        match self {
            Self::From(first, last) if first < size => {
                Some(first..last.map_or(size, |last| last.saturating_add(1).min(size)))
            }
            Self::Last(count) if count > 0 && size > 0 => Some(size.saturating_sub(count)..size),
            _ => None,
        }
    }
}

/// `None` for what is to be ignored: another unit, several ranges, nonsense.
fn parse_range(text: &str) -> Option<Asked> {
    let number = |text: &str| -> Option<u64> { text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())? };
    let (unit, spec) = text.split_once('=')?;
    let (first, last) = spec.trim().split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (first, last) {
        ("", count) => number(count).map(Asked::Last),
        (first, "") => number(first).map(|first| Asked::From(first, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Asked::From(first, Some(last)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
    const BEFORE: &str = "Wed, 31 Dec 2025 00:00:00 GMT";

    fn answer(size: u64, headers: &[(&'static str, &str)]) -> Answer {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        answer_of(size, Some(modified), headers)
    }

    fn answer_of(size: u64, modified: Option<SystemTime>, headers: &[(&'static str, &str)]) -> Answer {
        let object = Validators { size, etag: "\"e\"".parse().unwrap(), modified };
        let map = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        decide(&Method::GET, &map.collect(), &object)
    }

    #[test]
    fn ranges_are_cut_to_the_object() {
        for (text, expected) in [
            ("bytes=0-0", Answer::Part(0..1)),
            ("bytes=2-", Answer::Part(2..10)),
            ("bytes=2-99", Answer::Part(2..10)),
            ("bytes=-3", Answer::Part(7..10)),
            ("bytes=-99", Answer::Part(0..10)),
            ("Bytes=1-18446744073709551615", Answer::Part(1..10)),
            ("bytes=10-", Answer::RangeNotSatisfiable),
            ("bytes=-0", Answer::RangeNotSatisfiable),
            ("bytes=5-2", Answer::Whole),
            ("bytes=0-1,3-4", Answer::Whole),
            ("bytes=+1-2", Answer::Whole),
            ("lines=1-2", Answer::Whole),
            ("bytes=-", Answer::Whole),
            ("bytes=99999999999999999999-", Answer::Whole),
        ] {
            assert_eq!(answer(10, &[("range", text)]), expected, "{text}");
        }
        assert_eq!(answer(0, &[("range", "bytes=0-")]), Answer::RangeNotSatisfiable);
    }

    #[test]
    fn a_range_is_given_only_of_the_version_that_was_meant() {
        let with = |condition| answer(10, &[("range", "bytes=0-1"), ("if-range", condition)]);
        assert_eq!(with("\"e\""), Answer::Part(0..2));
        assert_eq!(with("\"x\""), Answer::Whole);
        assert_eq!(with("W/\"e\""), Answer::Whole);
        assert_eq!(with(DATE), Answer::Part(0..2));
        assert_eq!(with(BEFORE), Answer::Whole);
        assert_eq!(with("nonsense"), Answer::Whole);
    }

    #[test]
    fn conditions_are_taken_in_their_order() {
        for (headers, expected) in [
            (&[("if-none-match", "\"e\"")][..], Answer::NotModified),
            (&[("if-none-match", "*")], Answer::NotModified),
            (&[("if-none-match", "W/\"e\"")], Answer::NotModified),
            (&[("if-none-match", "\"x\""), ("if-modified-since", DATE)], Answer::Whole),
            (&[("if-modified-since", DATE)], Answer::NotModified),
            (&[("if-modified-since", BEFORE)], Answer::Whole),
            (&[("if-match", "\"x\"")], Answer::PreconditionFailed),
            (&[("if-match", "\"e\""), ("if-unmodified-since", BEFORE)], Answer::Whole),
            (&[("if-unmodified-since", BEFORE)], Answer::PreconditionFailed),
            (&[("if-match", "\"x\""), ("if-none-match", "\"e\"")], Answer::PreconditionFailed),
            (&[("if-none-match", "\"e\""), ("range", "bytes=0-1")], Answer::NotModified),
        ] {
            assert_eq!(answer(10, headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn no_date_is_made_up_for_an_object_without_one() {
        let range = ("range", "bytes=0-1");
        for headers in
            [&[("if-modified-since", DATE)][..], &[("if-unmodified-since", BEFORE)], &[("if-range", DATE), range]]
        {
            assert_eq!(answer_of(10, None, headers), Answer::Whole, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_beyond_the_end(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0u64..1000) {
            if let Answer::Part(range) = answer(size, &[("range", &text)]) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
