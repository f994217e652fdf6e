//! Servers that send nonsense, claim too much, stall or break off: each ends in a clear error, none in a panic, a wait
//! without end, or memory that was never received.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, outside of test functions"
)]

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use walreceiver::connection::{
    BackendMessage, ConnInfo, ConnectError, Connection, ConnectionError, Environment, Purpose,
};
use walreceiver::exit::{Exit, Recovery};

const AUTHENTICATION_OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const READY: &[u8] = b"Z\0\0\0\x05I";
const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
const CLEARTEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";

/// A server that runs `script` with its first connection.
async fn server<F: Future<Output = ()> + Send + 'static>(
    script: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> ConnInfo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(stream).await;
    });
    let text = format!("host=127.0.0.1 port={port} user=u password=secret sslmode=disable");
    ConnInfo::resolve(&text, &Environment::default()).unwrap()
}

/// A server that reads the start-up message, sends this, and reads on until the end.
async fn sends(bytes: Vec<u8>) -> ConnInfo {
    server(|mut stream| async move {
        read_startup(&mut stream).await;
        stream.write_all(&bytes).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

async fn read_startup(stream: &mut TcpStream) {
    let length = stream.read_u32().await.unwrap();
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut body).await.unwrap();
}

async fn connect(conninfo: &ConnInfo) -> Result<Connection, ConnectError> {
    let connecting = Connection::connect(conninfo, Purpose::PhysicalReplication);
    tokio::time::timeout(Duration::from_secs(20), connecting)
        .await
        .expect("ends in time")
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

async fn connected(after_ready: &[u8]) -> Connection {
    connect(&sends([AUTHENTICATION_OK, READY, after_ready].concat()).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn nonsense_at_the_start_is_refused_at_once() {
    for (bytes, exit, expected) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            Exit::Corrupt,
            "claims a length of",
        ),
        (
            b"SSH-2.0-OpenSSH_9.6\r\n",
            Exit::Corrupt,
            "claims a length of",
        ),
        (b"\x15\x03\x03\0\x02", Exit::Corrupt, "unknown tag"),
        (
            b"R\x7f\xff\xff\xff",
            Exit::Corrupt,
            "claims a length of 2147483647 bytes",
        ),
        (
            b"R\xff\xff\xff\xff",
            Exit::Corrupt,
            "claims a length of 4294967295 bytes",
        ),
        (b"R\0\0\0\x03", Exit::Corrupt, "claims a length of 3 bytes"),
        (b"R\0\0\0\x05\0", Exit::Corrupt, "malformed message 'R'"),
        (
            b"Z\0\0\0\x05I",
            Exit::Corrupt,
            "while waiting for an authentication request",
        ),
        (
            b"R\0\0\0\x08\0\0\0\x07",
            Exit::Denied,
            "GSSAPI (code 7) is not supported",
        ),
        (
            b"R\0\0\0\x08\0\0\0\x63",
            Exit::Denied,
            "unknown (code 99) is not supported",
        ),
        (
            b"R\0\0\0\x09\0\0\0\x0a\0",
            Exit::Denied,
            "none of the server's SASL",
        ),
        (
            b"R\0\0\0\x08\0\0\0\x0c",
            Exit::Corrupt,
            "AuthenticationSASLFinal while waiting",
        ),
        (
            b"Ecould not fork new process for connection: x\n\0",
            Exit::Unreachable,
            "FATAL:  could not fork",
        ),
        (b"E\0\0\0\x05S", Exit::Corrupt, "malformed message 'E'"),
    ] {
        let error = connect(&sends(bytes.to_vec()).await).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.exit(), exit, "{error}");
    }
}

#[tokio::test]
async fn a_password_is_not_given_to_whoever_asks() {
    for (bytes, expected) in [
        (CLEARTEXT.to_vec(), "only with require_auth=password"),
        // Once SCRAM has begun, neither a weaker method nor a sudden welcome is taken.
        (
            [SASL, CLEARTEXT].concat(),
            "AuthenticationCleartextPassword while waiting",
        ),
        (
            [SASL, MD5].concat(),
            "AuthenticationMD5Password while waiting",
        ),
        (
            [SASL, AUTHENTICATION_OK].concat(),
            "server did not complete authentication",
        ),
        ([SASL, SASL].concat(), "AuthenticationSASL while waiting"),
        (
            [SASL, b"R\0\0\0\x0a\0\0\0\x0bxx"].concat(),
            "SCRAM exchange failed",
        ),
    ] {
        let error = connect(&sends(bytes).await).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.recovery(), Recovery::Permanent, "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_runs_into_the_time_limit() {
    let conninfo = sends(Vec::new())
        .await
        .with_connect_timeout_default(Duration::from_millis(200));
    let begin = Instant::now();
    let error = connect(&conninfo).await.unwrap_err();
    assert!(begin.elapsed() >= Duration::from_millis(200));
    assert!(
        error.to_string().contains("timeout expired after 0.2 s"),
        "{error}"
    );
    assert_eq!(
        (error.exit(), error.recovery()),
        (Exit::Unreachable, Recovery::Passing)
    );
}

#[tokio::test]
async fn a_server_that_goes_away_is_unreachable() {
    let conninfo = server(|mut stream| async move { read_startup(&mut stream).await }).await;
    let error = connect(&conninfo).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("server closed the connection unexpectedly"),
        "{error}"
    );
    assert_eq!(
        (error.exit(), error.recovery()),
        (Exit::Unreachable, Recovery::Passing)
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let text = format!("host=127.0.0.1 port={port} user=u");
    let error = connect(&ConnInfo::resolve(&text, &Environment::default()).unwrap())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("Is the server running on that host"),
        "{error}"
    );
    assert_eq!(
        (error.exit(), error.recovery()),
        (Exit::Unreachable, Recovery::Passing)
    );
}

#[tokio::test]
async fn a_claim_of_two_gigabytes_ends_a_running_session() {
    for (bytes, expected) in [
        (&b"d\x7f\xff\xff\xff"[..], "claims a length of 2147483647"),
        (b"D\x7f\xff\xff\xff", "claims a length of 2147483647"),
        (b"d\0\0\0\0", "claims a length of 0"),
        (b"D\0\0\0\x06\0\x01", "malformed message 'D' of 2 bytes"),
        (b"x\0\0\0\x04", "unknown tag 'x'"),
    ] {
        let mut connection = connected(bytes).await;
        let error = connection.next_message().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(
            (error.exit(), error.recovery()),
            (Exit::Corrupt, Recovery::Permanent),
            "{error}"
        );
        assert!(connection.is_broken());
        assert!(matches!(
            connection.next_message().await,
            Err(ConnectionError::Broken)
        ));
        assert!(matches!(
            connection.query("SELECT 1").await,
            Err(ConnectionError::Broken)
        ));
    }
}

#[tokio::test]
async fn a_wait_that_is_given_up_loses_nothing() {
    let conninfo = server(|mut stream| async move {
        read_startup(&mut stream).await;
        let mut bytes = [AUTHENTICATION_OK, READY].concat();
        for number in 0..50_u8 {
            bytes.extend([b'd', 0, 0, 0, 7, number, number, number]);
        }
        bytes.extend(b"c\0\0\0\x04");
        for chunk in bytes.chunks(3) {
            stream.write_all(chunk).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut connection = connect(&conninfo).await.unwrap();
    let mut received = Vec::new();
    let mut given_up = 0;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(Duration::from_micros(300)) => given_up += 1,
            message = connection.next_message() => match message.unwrap() {
                BackendMessage::CopyData(data) => received.push(data.to_vec()),
                BackendMessage::CopyDone => break,
                other => panic!("{other:?}"),
            },
        }
    }
    assert_eq!(
        received,
        (0..50_u8).map(|number| vec![number; 3]).collect::<Vec<_>>()
    );
    assert!(given_up > 10, "{given_up}");
}

#[tokio::test]
async fn a_send_that_is_given_up_is_sent_whole_by_the_next_wait() {
    const SIZE: usize = 32 << 20;
    let (told, tell) = tokio::sync::oneshot::channel();
    let conninfo = server(|mut stream| async move {
        read_startup(&mut stream).await;
        stream
            .write_all(&[AUTHENTICATION_OK, READY].concat())
            .await
            .unwrap();
        tell.await.unwrap();
        let mut header = [0; 5];
        stream.read_exact(&mut header).await.unwrap();
        let mut body = vec![0; SIZE];
        stream.read_exact(&mut body).await.unwrap();
        assert!(body.iter().all(|byte| *byte == 7));
        stream.write_all(b"c\0\0\0\x04").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut connection = connect(&conninfo).await.unwrap();
    let data = vec![7; SIZE];
    // The server does not read, so the socket is full long before the end.
    let sending = connection.send_copy_data(&data);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), sending)
            .await
            .is_err()
    );
    told.send(()).unwrap();
    assert_eq!(
        connection.next_message().await.unwrap(),
        BackendMessage::CopyDone
    );
}

#[tokio::test]
async fn an_error_in_the_middle_leaves_the_connection_usable() {
    let answer = [
        frame(b'E', b"SERROR\0C42601\0Mbad\0\0"),
        READY.to_vec(),
        frame(
            b'T',
            b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
        ),
        frame(b'D', b"\0\x01\0\0\0\x01x"),
        frame(b'C', b"SELECT 1\0"),
        READY.to_vec(),
    ];
    let mut connection = connected(&answer.concat()).await;
    let first = connection.query("bad").await.unwrap_err();
    assert_eq!(first.to_string(), "ERROR:  bad");
    let second = connection.query("good").await.unwrap();
    assert_eq!(
        (second.text(0, 0), second.command_tag.as_str()),
        (Some("x"), "SELECT 1")
    );
}

#[tokio::test]
async fn answers_to_the_request_for_tls_are_checked() {
    for (answer, mode, expected) in [
        (
            &b"N"[..],
            "require",
            "server does not support SSL, but SSL was required",
        ),
        (
            b"X",
            "require",
            "received invalid response to SSL negotiation: 'X'",
        ),
        (
            b"E\0\0\0\x09Mlies\0\0",
            "require",
            "server sent an error response during SSL exchange",
        ),
        (b"Sthis is no TLS", "require", "SSL error"),
        (b"", "require", "connection was lost during SSL negotiation"),
    ] {
        let conninfo = server(move |mut stream| async move {
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(request, [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await
        .with_parameter("sslmode", mode)
        .unwrap();
        let error = connect(&conninfo).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains("lies"), "{error}");
    }
}
