//! Connections: how many, which protocol, and how they end.

use super::*;

#[tokio::test]
async fn http_2_is_spoken_to_those_who_begin_with_it() {
    let front = front().await;
    let stream = TokioIo::new(TcpStream::connect(front.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://localhost/a").body(Full::<Bytes>::default()).unwrap();
    let answered = sender.send_request(request).await.unwrap();
    assert_eq!(answered.version(), http::Version::HTTP_2);
    let said = answered.into_body().collect().await.unwrap().to_bytes();
    assert!(said.starts_with(b"GET /a [\"host\"]"), "{said:?}");
    drop(sender);
    let _ = connection.await;
    front.stop().await;
}

#[tokio::test]
async fn more_requests_than_may_be_are_shed_while_operations_go_on() {
    let front = front_with(|gateway| gateway.requests_max(1)).await;
    let mut busy = TcpStream::connect(front.address).await.unwrap();
    busy.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    busy.read_u8().await.unwrap();
    let shed = front.get("/a").await;
    assert_eq!(
        (shed.status(), &shed.headers()[header::RETRY_AFTER]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
    assert_eq!(front.get("/-/healthz").await.status(), StatusCode::OK);
    assert!(text(&front.get("/-/metrics").await).contains("datad_http_in_flight{kind=\"data\"} 1"));
    drop(busy);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while front.get("/a").await.status() != StatusCode::OK {
        assert!(tokio::time::Instant::now() < deadline, "a request that was broken off still counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    front.stop().await;
}

#[tokio::test]
async fn idle_connections_give_way_to_new_ones_and_busy_ones_do_not() {
    let front = front_with(|gateway| gateway.connections_max(3)).await;
    let mut busy = TcpStream::connect(front.address).await.unwrap();
    busy.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    busy.read_u8().await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut connection = TcpStream::connect(front.address).await.unwrap();
        if idle.is_empty() {
            connection.write_all(b"GET /-/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            connection.read_u8().await.unwrap();
        }
        idle.push(connection);
    }
    for _ in 0..5 {
        assert_eq!(front.get("/-/healthz").await.status(), StatusCode::OK);
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, idle[0].read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the one that was idle for the longest time is closed");
    busy.read_u8().await.unwrap();
    drop(busy);
    front.stop().await;
}

#[tokio::test]
async fn absurd_heads_are_refused_by_the_protocol() {
    let front = front().await;
    let long = "x".repeat(70_000);
    let answer = front.raw(&format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer =
        front.raw(&format!("GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", &long[..600])).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("more than 512"), "{answer}");
    let answer = front.raw("OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    front.stop().await;
}

#[tokio::test]
async fn stopping_breaks_off_what_does_not_end_by_itself() {
    let front = front_with(|gateway| gateway.drain(Duration::from_millis(200))).await;
    let mut busy = TcpStream::connect(front.address).await.unwrap();
    busy.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    busy.read_u8().await.unwrap();
    let address = front.address;
    front.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, busy.read_to_end(&mut rest)).await.expect("the connection was closed");
}
