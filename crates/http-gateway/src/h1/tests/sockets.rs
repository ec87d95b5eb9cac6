//! Over real sockets and TLS, on a clock that runs.

use super::*;

#[tokio::test]
async fn a_real_socket_sends_a_file_within_the_kernel() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut wire = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (transport, _) = listener.accept().await.unwrap();
    let (_drain, ear) = Drain::channel();
    let service = Arc::new(Fake::default());
    let connection = Connection::default();
    let served = serve(transport, BytesMut::new(), connection, Arc::clone(&service), Arc::default(), ear);
    let served = tokio::spawn(served);
    let mut seen = Vec::new();
    wire.write_all(format!("GET /file HTTP/1.1\r\n{CLOSE}").as_bytes()).await.unwrap();
    wire.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen.iter().rev().take_while(|&&b| b == b'f').count(), 100_000);
    served.await.unwrap();
    assert_eq!(*service.finished.lock().unwrap(), ["/file 200 100000"]);
}

#[tokio::test]
async fn a_body_without_a_length_that_breaks_off_ends_in_a_reset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut wire = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (transport, _) = listener.accept().await.unwrap();
    let (_drain, ear) = Drain::channel();
    let connection = Connection::default();
    let service = Arc::<Fake>::default();
    let served = serve(transport, BytesMut::new(), connection, Arc::clone(&service), Arc::default(), ear);
    let served = tokio::spawn(served);
    wire.write_all(b"GET /stream-abort HTTP/1.0\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    let end = wire.read_to_end(&mut seen).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    served.await.unwrap();
    assert_eq!(*service.finished.lock().unwrap(), ["/stream-abort 200 11 cut"]);
}

/// What ten thousand idle connections cost is this, their timer and what the reactor holds for a socket.
#[tokio::test]
async fn an_idle_connection_is_small() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_drain, ear) = Drain::channel();
    let connection = Connection::default();
    let served = serve(transport, BytesMut::new(), connection, Arc::<Fake>::default(), Arc::default(), ear);
    assert!(size_of_val(&served) <= 504, "{} bytes", size_of_val(&served));
}

#[tokio::test]
async fn over_tls_bodies_arrive_whole_and_the_end_is_announced() {
    let files = crate::testing::tls_files();
    let identity = files.identity();
    let (near, far) = duplex(WIRE_BYTES);
    let acceptor = tokio_rustls::TlsAcceptor::from(identity.current());
    let connector = tokio_rustls::TlsConnector::from(files.client(&[]));
    let (client, transport) =
        tokio::join!(connector.connect("localhost".try_into().unwrap(), near), acceptor.accept(far));
    let (mut client, transport) = (client.unwrap(), transport.unwrap());
    let (_drain, ear) = Drain::channel();
    let service = Arc::new(Fake::default());
    let connection = Connection { tls: true, ..Connection::default() };
    let served = tokio::spawn(serve(
        transport,
        BytesMut::new(),
        connection,
        Arc::clone(&service),
        Arc::default(),
        ear,
    ));
    client.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.write_all(format!("GET /file HTTP/1.1\r\n{CLOSE}").as_bytes()).await.unwrap();
    // Without the closing message of TLS this would be an error: the end could have been forged.
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(memchr::memchr_iter(b'x', &seen).count(), 300_000);
    assert_eq!(seen.iter().rev().take_while(|&&b| b == b'f').count(), 100_000);
    served.await.unwrap();
    assert_eq!(*service.finished.lock().unwrap(), ["/large 200 300000", "/file 200 100000"]);
}
