//! What a person gets who opens a node in a browser: a page that says what this is and where everything stands, and
//! redirects from paths that are almost right.

use std::sync::Arc;

use axum::{
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, Uri, header};

use super::state::State;
use crate::key::Key;

/// The page loads nothing and runs nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// The operations that can be opened, and what each shows.
const DOCUMENTS: &[(&str, &str)] = &[
    ("status", "how this node and its cluster are"),
    ("members", "the members, and how many keys each has"),
    ("keys", "the keys that the cluster holds"),
    ("pins", "the keys that are kept whether or not somebody asks for them"),
    #[cfg(feature = "metrics")]
    ("metrics", "numbers for Prometheus"),
    ("readyz", "whether this node is ready"),
    ("healthz", "whether this node lives"),
];

/// The page at `/-/`.
pub(super) async fn front(Shared(state): Shared<Arc<State>>) -> Response {
    // A name has letters, digits, dots, dashes and underscores only.
    let name = state.client.view().me().clone();
    let documents: String = DOCUMENTS
        .iter()
        .map(|(path, what)| format!("<dt><a href=\"/-/{path}\">/-/{path}</a></dt><dd>{what}</dd>\n"))
        .collect();
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name} - datad-gossip</title>\n\
         <style>body{{font:1em/1.5 sans-serif;max-width:44em;margin:2em auto;padding:0 1em}}</style></head><body>\n\
         <h1>{name}</h1>\n<p>This is a node of datad-gossip. Data stands at the root: <code>/KEY</code> gives what the key \
         holds, from whichever node has it. To see where a key is, and why, open <code>/-/locate/KEY?explain=true</code>.</p>\n\
         <dl>\n{documents}</dl>\n</body></html>\n"
    );
    let fields = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (fields, page).into_response()
}

/// A redirect to where a person meant to go who asked for `uri`, which is nothing: to the page from the root, and from a
/// path with a slash at its end to the same without it. Nothing but reading is redirected.
pub(super) fn elsewhere(method: &Method, uri: &Uri) -> Option<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let path = uri.path();
    let bare = path.trim_end_matches('/');
    let to = match bare {
        "" | "/-" if path != "/-/" => "/-/".to_owned(),
        // A key has no empty components, so this leads to no other host. An operation is not a key.
        _ if bare.len() < path.len() && (bare.starts_with("/-/") || Key::from_path(bare).is_ok()) => {
            uri.query().map_or_else(|| bare.to_owned(), |query| format!("{bare}?{query}"))
        }
        _ => return None,
    };
    let location = HeaderValue::from_str(&to).ok()?;
    let fields = [(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Some((StatusCode::TEMPORARY_REDIRECT, fields, format!("see {to}\n")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads_to(method: Method, uri: &str) -> Option<String> {
        let response = elsewhere(&method, &uri.parse().unwrap())?;
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        Some(response.headers()[header::LOCATION].to_str().unwrap().to_owned())
    }

    #[test]
    fn a_path_that_is_almost_right_leads_to_the_right_one() {
        for (from, to) in [
            ("/", "/-/"),
            ("/-", "/-/"),
            ("/docs/", "/docs"),
            ("/docs/a%20b/?x=1", "/docs/a%20b?x=1"),
            ("/-/status/", "/-/status"),
        ] {
            assert_eq!(leads_to(Method::GET, from).as_deref(), Some(to), "{from}");
        }
    }

    #[test]
    fn nobody_is_led_to_another_host_in_a_circle_or_with_a_change() {
        for path in ["//evil.example/", "/a//b/", "/../x/", "/docs", "/-/", "/-x/"] {
            assert_eq!(leads_to(Method::GET, path), None, "{path}");
        }
        assert_eq!(leads_to(Method::POST, "/docs/"), None);
    }
}
