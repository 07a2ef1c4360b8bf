//! Header fields at the border: what belongs to one hop stays there (RFC 9110, section 7.6.1), what only this system
//! may say is taken from nobody else, and every response says who answered and whether it had to be fetched (RFC 9211).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{hop, key::NodeName, operations::send::AnsweredBy};

/// Fields with this prefix are ours.
const OWN_PREFIX: &str = "x-datad-";
const NODE: HeaderName = HeaderName::from_static("x-datad-node");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Leaves of a request's fields what the provider may see.
pub(super) fn strip_request(fields: &mut HeaderMap) {
    hop::strip(fields);
    let own: Vec<HeaderName> = fields.keys().filter(|name| name.as_str().starts_with(OWN_PREFIX)).cloned().collect();
    for name in own {
        fields.remove(name);
    }
}

/// Leaves of a response's fields what the client may see.
pub(super) fn strip_response(fields: &mut HeaderMap) {
    hop::strip(fields);
}

/// Says who answered, and whether the key was there already.
pub(super) fn describe(fields: &mut HeaderMap, answered: &AnsweredBy) {
    fields.insert(NODE, name_value(&answered.node));
    let status = if answered.fetched { "datad-gossip; fwd=miss; stored" } else { "datad-gossip; hit" };
    // Appended: caches list themselves from the origin's end to the client's.
    fields.append(CACHE_STATUS, HeaderValue::from_static(status));
}

fn name_value(node: &NodeName) -> HeaderValue {
    HeaderValue::from_str(node.as_str()).expect("node names are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn names(fields: &HeaderMap) -> Vec<&str> {
        fields.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn nobody_else_speaks_in_our_name() {
        let mut map = fields(&[("x-datad-node", "evil"), ("x-datad-anything", "1"), ("x-other", "1")]);
        strip_request(&mut map);
        assert_eq!(names(&map), ["x-other"]);
    }

    #[test]
    fn the_response_says_who_answered_and_keeps_what_caches_before_us_said() {
        let answered = |fetched| AnsweredBy { node: NodeName::new("n1").unwrap(), fetched };
        let mut map = fields(&[("cache-status", "Origin; hit"), ("x-datad-node", "forged")]);
        describe(&mut map, &answered(true));
        assert_eq!(map.get_all("x-datad-node").iter().collect::<Vec<_>>(), ["n1"]);
        let said: Vec<_> = map.get_all("cache-status").iter().collect();
        assert_eq!(said, ["Origin; hit", "datad-gossip; fwd=miss; stored"]);
        let mut map = HeaderMap::new();
        describe(&mut map, &answered(false));
        assert_eq!(map["cache-status"], "datad-gossip; hit");
    }
}
