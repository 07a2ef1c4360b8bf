//! Bodies that break off, stand still or never end.

use super::*;

/// An HTTP/2 connection with a receive window of this many bytes for each stream.
async fn h2(address: std::net::SocketAddr, window: u32) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn get_at(address: std::net::SocketAddr, path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://{address}{path}")).body(Full::default()).unwrap()
}

/// Bodies of every framing that break off, are malformed, or stop at every byte: each request ends, and the node goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_body_breaks_at_any_byte_ends_and_hurts_no_other() {
    let (front, holder) = front_beside_a_holder("held").await;
    let fields = "POST /held HTTP/1.1\r\nhost: localhost\r\n";
    let chunked = format!("{fields}transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\n\r\n");
    let sized = format!("{fields}content-length: 9\r\n\r\n012345678");
    let long = format!("{fields}content-length: 400000\r\n\r\n{}", "x".repeat(300_000));
    let mut broken: Vec<Vec<u8>> = Vec::new();
    for whole in [&chunked, &sized] {
        let head = whole.find("\r\n\r\n").unwrap() + 4;
        for at in head..whole.len() {
            broken.push(whole.as_bytes()[..at].to_vec());
            let mut damaged = whole.clone().into_bytes();
            damaged[at] = b'Z';
            broken.push(damaged);
        }
    }
    broken.push(format!("{fields}transfer-encoding: chunked\r\n\r\nZZ\r\n").into_bytes());
    broken.push(long.into_bytes());
    let all = futures::future::join_all(broken.iter().map(|bytes| async {
        let mut stream = TcpStream::connect(front.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        // No more is coming: what is missing will never be there.
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Whatever is answered, if anything is: it ends.
        let _ = stream.read_to_end(&mut answer).await;
    }));
    tokio::time::timeout(PATIENCE, all).await.expect("each request ends");
    let answered = front.get("/-/healthz").await;
    assert_eq!(answered.status(), StatusCode::OK);
    assert_eq!(front.get("/held").await.status(), StatusCode::OK);
    let located = front.node.client().locate(&Key::new("held").unwrap());
    assert!(
        located.holders.iter().all(|holding| holding.state == crate::core::registry::HoldingState::Ready),
        "a client's trouble is not the holder's: {located:?}"
    );
    front.stop().await;
    holder.shutdown().await;
}

#[tokio::test]
async fn clients_that_take_nothing_in_are_given_up_and_leave_room_to_others_meanwhile() {
    let front = front_with(|gateway| gateway.requests_max(16).client_patience(Duration::from_secs(2))).await;
    front.get("/x").await;
    let mut greedy = h2(front.address, 0).await;
    let mut held = Vec::new();
    for number in 0..16 {
        let response = greedy.send_request(get_at(front.address, "/endless")).await.unwrap();
        let expected = if number < 12 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        assert_eq!(response.status(), expected, "{number}: a quarter is left to others");
        held.push(response);
    }
    assert_eq!(front.get("/-/readyz").await.status(), StatusCode::OK);
    // All of its responses have stalled, so the whole connection ends, and its places are free again.
    let ended = async {
        for response in held.drain(..12) {
            assert!(response.into_body().collect().await.is_err());
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("what stalls ends");
    let again = async {
        while front.get("/endless-not").await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("the places are free again");
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_connection() {
    let front = front_with(|gateway| gateway.client_patience(Duration::from_secs(1))).await;
    front.get("/x").await;
    let mut stream = TcpStream::connect(front.address).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let in_flight = async |count: u32| {
        let metrics = front.get("/-/metrics").await;
        text(&metrics).contains(&format!("datad_http_in_flight{{kind=\"data\"}} {count}\n"))
    };
    let begun_and_ended = async {
        for count in [1, 0] {
            while !in_flight(count).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        // What the kernel holds is still there, and then the end.
        let mut sent = Vec::new();
        let _ = stream.read_to_end(&mut sent).await;
    };
    tokio::time::timeout(3 * PATIENCE, begun_and_ended).await.expect("it ends, though its answer never would");
    front.stop().await;
}

/// More unread answers between two nodes than their connection has room for: calls between them get through all the same.
#[tokio::test]
async fn stalled_readers_of_data_do_not_stop_calls_between_nodes() {
    let (front, holder) = front_beside_a_holder("silent").await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = h2(front.address, 1 << 20).await;
        for _ in 0..250 {
            waiting.push(client.send_request(get_at(front.address, "/silent")));
        }
    }
    let answers = tokio::time::timeout(PATIENCE, futures::future::join_all(waiting)).await.expect("all are answered");
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    let refused = answers.iter().filter(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE).count();
    assert!((300..=350).contains(&refused), "{refused} of 750 found no room");
    let recorded = tokio::time::timeout(PATIENCE, front.node.client().pin(&Key::new("silent").unwrap(), None)).await;
    let confirmed = recorded.expect("a call is answered").unwrap().confirmed;
    assert!(confirmed.contains(holder.name()), "{confirmed:?}");
    assert_eq!(front.get("/-/readyz").await.status(), StatusCode::OK);
    drop(answers);
    front.stop().await;
    holder.shutdown().await;
}

/// A body too long to be kept, at a node whose only holder dies: the request ends, and is at no second node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_request_at_a_holder_that_dies_ends_and_hurts_no_other() {
    let (front, holder) = front_beside_a_holder("held").await;
    let head = "POST /held HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 600000\r\n\r\n";
    let requests = (0..8).map(|_| async {
        let mut stream = TcpStream::connect(front.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; 300_000]).await.unwrap();
        stream
    });
    let mut streams = futures::future::join_all(requests).await;
    drop(holder);
    let ends = futures::future::join_all(streams.iter_mut().map(|stream| async {
        let _ = stream.write_all(&vec![b'x'; 300_000]).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).chars().take(12).collect::<String>()
    }));
    let answers = tokio::time::timeout(PATIENCE, ends).await.expect("each request ends");
    assert!(answers.iter().all(|answer| answer.is_empty() || answer.starts_with("HTTP/1.1 ")), "{answers:?}");
    assert_eq!(front.get("/-/healthz").await.status(), StatusCode::OK);
    front.stop().await;
}
