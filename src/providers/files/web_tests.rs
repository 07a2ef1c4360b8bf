//! What web servers say of their objects, byte by byte: unknown lengths, bodies that break off,
//! dates that are not there, refusals that pass.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    key::KeyError,
    provider::{Provider, UpdateError, empty},
    providers::testing::{alone, key},
};

/// The requests that an origin got, each as it came.
type Asked = Arc<Mutex<Vec<String>>>;

/// A web server that answers the n-th request as `answer` says, and closes.
async fn origin(answer: impl Fn(usize, &str) -> Vec<u8> + Send + 'static) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            log.lock().unwrap().push(head.clone());
            let _ = stream.write_all(&answer(number, &head)).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, asked)
}

fn open(url: &str) -> (tempfile::TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(FilesConfig::new(url, dir.path().join("files"))).unwrap();
    (dir, files)
}

async fn ask(files: &Files, fields: &[(&str, &str)]) -> (Response<()>, String) {
    let mut request = Request::builder().method(Method::GET).uri("/a");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (parts, body) = files.serve(&key("a"), request.body(empty()).unwrap()).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, ()), String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_length_that_is_not_announced_is_read_to_its_end_and_what_is_said_of_the_object_is_passed_on() {
    let fields = [
        ("content-type", "application/octet-stream"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("content-disposition", "attachment; filename=\"x\""),
        ("cache-control", "max-age=60"),
        ("etag", "\"v1\""),
        ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ];
    let said: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\n{said}transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
    let (url, asked) = origin(move |_, _| answer.clone().into_bytes()).await;
    let (_dir, files) = open(&url);
    files.update(&key("a"), alone()).await.unwrap();
    let (response, text) = ask(&files, &[]).await;
    assert_eq!((text.as_str(), &response.headers()["content-length"]), ("hello", &"5".parse().unwrap()));
    for (name, value) in fields {
        assert_eq!(response.headers()[name], value, "{name}");
    }
    let (unchanged, _) = ask(&files, &[("if-none-match", "\"v1\"")]).await;
    assert_eq!(
        (unchanged.status().as_u16(), &unchanged.headers()["cache-control"]),
        (304, &"max-age=60".parse().unwrap())
    );
    files.update(&key("a"), alone()).await.unwrap();
    assert!(asked.lock().unwrap()[1].starts_with("head "), "the tag is compared, although no length is told");
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn an_announced_length_is_held_against_what_comes_and_an_unknown_one_against_its_end() {
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let (url, _) = origin(move |_, _| cut.as_bytes().to_vec()).await;
        let (_dir, files) = open(&url);
        let outcome = files.update(&key("a"), alone()).await;
        assert!(matches!(outcome, Err(UpdateError::Unavailable(_))), "{outcome:?}");
        assert!(!files.has(&key("a")).await.unwrap());
    }
}

#[tokio::test]
async fn no_date_is_made_up_for_an_object_that_has_none() {
    let version =
        |number: usize| format!("HTTP/1.1 200 OK\r\netag: \"v{number}\"\r\ncontent-length: 2\r\n\r\nv{number}");
    let (url, _) = origin(move |number, head| {
        let whole = version(number.min(1));
        let cut = if head.starts_with("head ") { whole.len() - 2 } else { whole.len() };
        whole.as_bytes()[..cut].to_vec()
    })
    .await;
    let (_dir, files) = open(&url);
    files.update(&key("a"), alone()).await.unwrap();
    let since = [("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT")];
    for expected in ["v0", "v1"] {
        let (response, text) = ask(&files, &since).await;
        assert_eq!((response.status().as_u16(), text.as_str()), (200, expected));
        assert!(!response.headers().contains_key("last-modified"));
        files.update(&key("a"), alone()).await.unwrap();
    }
}

/// `text` in a few answers, each of which breaks off after four bytes; later ones give the rest if asked for it.
fn in_pieces(text: &'static str, tag: &'static str) -> impl Fn(usize, &str) -> Vec<u8> + Send + 'static {
    move |_, head| {
        let from = head.split_once("range: bytes=").and_then(|(_, rest)| rest.split_once('-')?.0.parse::<usize>().ok());
        let is_meant = head.contains(&format!("if-match: {tag}").to_ascii_lowercase());
        let status = match from {
            None => "200 OK".to_owned(),
            Some(_) if !is_meant => return b"HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\n\r\n".to_vec(),
            Some(at) => format!("206 Partial Content\r\ncontent-range: bytes {at}-{}/{}", text.len() - 1, text.len()),
        };
        let rest = &text[from.unwrap_or(0)..];
        let piece = &rest[..rest.len().min(4)];
        format!("HTTP/1.1 {status}\r\netag: {tag}\r\ncontent-length: {}\r\n\r\n{piece}", rest.len()).into_bytes()
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_read_on_where_it_did_if_it_is_the_same_one() {
    let (url, asked) = origin(in_pieces("hello, world", "\"v1\"")).await;
    let (_dir, files) = open(&url);
    files.update(&key("a"), alone()).await.unwrap();
    assert_eq!(ask(&files, &[]).await.1, "hello, world");
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 3);
    assert!(asked[1].contains("range: bytes=4-") && asked[2].contains("range: bytes=8-"), "{asked:?}");
}

#[tokio::test]
async fn a_body_without_a_strong_tag_is_not_patched_together() {
    let (url, asked) = origin(in_pieces("hello, world", "W/\"v1\"")).await;
    let (_dir, files) = open(&url);
    let outcome = files.update(&key("a"), alone()).await;
    assert!(matches!(outcome, Err(UpdateError::Unavailable(_))), "{outcome:?}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_origin_that_asks_for_patience_is_neither_missing_nor_broken() {
    for (said, expected) in [
        ("403 Forbidden\r\nretry-after: 30", Some(30)),
        ("429 Too Many Requests\r\nretry-after: 7", Some(7)),
        ("429 Too Many Requests", Some(60)),
        ("503 Service Unavailable\r\nretry-after: 120", Some(120)),
        ("503 Service Unavailable", None),
    ] {
        let (url, _) = origin(move |_, _| format!("HTTP/1.1 {said}\r\ncontent-length: 0\r\n\r\n").into_bytes()).await;
        let (_dir, files) = open(&url);
        let outcome = files.update(&key("a"), alone()).await;
        match (&outcome, expected) {
            (Err(UpdateError::Later { after, .. }), Some(seconds)) => assert_eq!(after.as_secs(), seconds, "{said}"),
            (Err(UpdateError::Unavailable(_)), None) => {}
            _ => panic!("{said}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_redirect_to_a_sign_in_page_is_a_refusal() {
    for to in ["/users/sign_in?back=/a", "/login.html", "/-/../oauth2/authorize"] {
        let (url, asked) = origin(move |_, head| {
            let found = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            let page = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nform".to_owned();
            if head.starts_with("get /a ") { found } else { page }.into_bytes()
        })
        .await;
        let (_dir, files) = open(&url);
        let outcome = files.update(&key("a"), alone()).await;
        assert!(matches!(outcome, Err(UpdateError::Forbidden(_))), "{to}: {outcome:?}");
        assert_eq!(asked.lock().unwrap().len(), 1, "{to}");
    }
}

#[tokio::test]
async fn requests_that_differ_in_their_query_are_not_given_one_answer_unless_the_source_gives_one() {
    let (_dir, files) = open("http://127.0.0.1:9/base");
    let uri = |text: &str| text.parse::<Uri>().unwrap();
    assert!(matches!(files.key_of_request(&uri("/q?a=1")), Err(KeyError::Refused(_))));
    assert_eq!(files.key_of_request(&uri("/q")).unwrap(), key("q"));
    let dir = tempfile::tempdir().unwrap();
    let folder = Files::open(FilesConfig::new(dir.path().to_str().unwrap(), dir.path().join("own"))).unwrap();
    assert_eq!(folder.key_of_request(&uri("/q?a=1")).unwrap(), key("q"));
}

#[test]
fn no_store_limits_how_long_an_object_may_take() {
    use object_store::ClientConfigKey as C;
    for options in [source::timeouts(), source::s3_options()] {
        let limit = options.get_config_value(&C::Timeout);
        assert!(limit.is_none_or(|limit| limit.is_empty()), "{:?}", options.get_config_value(&C::Timeout));
        assert!(options.get_config_value(&C::ReadTimeout).is_some(), "but it does how long it may stand still");
    }
}

#[tokio::test]
async fn a_web_server_that_cannot_say_whether_it_has_an_object_is_not_taken_at_its_word() {
    let statuses = ["200 OK", "404 Not Found", "503 Service Unavailable", "403 Forbidden"];
    let (url, asked) = origin(move |number, _| {
        format!("HTTP/1.1 {}\r\ncontent-length: 0\r\n\r\n", statuses[number.min(3)]).into_bytes()
    })
    .await;
    let (_dir, files) = open(&url);
    assert!(matches!(files.is_at_origin(&key("a")).await, Ok(Some(true))));
    assert!(matches!(files.is_at_origin(&key("a")).await, Ok(Some(false))));
    assert!(!matches!(files.is_at_origin(&key("a")).await, Ok(Some(_))));
    assert!(!matches!(files.is_at_origin(&key("a")).await, Ok(Some(true))));
    assert!(asked.lock().unwrap().iter().all(|head| head.starts_with("head ")), "nothing is fetched");
}
