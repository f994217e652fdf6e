//! [`MetricsListener`]: gives one text to whoever asks over HTTP, whatever the path, as Prometheus does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Prometheus's text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a client may take to send its request, and may keep the connection without one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Most connections at a time; further ones wait.
const MAX_CONNECTIONS: usize = 16;

/// How long to wait after a failure to accept, such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why metrics are not served.
#[derive(Debug, Error)]
#[error("cannot serve metrics on {address}: {source}; choose another --metrics address")]
pub struct MetricsListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system answered.
    pub source: io::Error,
}

/// A bound address.
#[derive(Debug)]
pub struct MetricsListener(TcpListener);

impl MetricsListener {
    /// Listens there.
    ///
    /// # Errors
    /// [`MetricsListenError`] when the address is taken or not this machine's.
    pub async fn bind(address: SocketAddr) -> Result<Self, MetricsListenError> {
        let listener = TcpListener::bind(address).await;
        listener
            .map(Self)
            .map_err(|source| MetricsListenError { address, source })
    }

    /// Where it listens; a port of 0 is the real one here.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers, for as long as it is polled. The text is made when somebody asks, where that may block.
    pub async fn serve(self, text: impl Fn() -> String + Send + Sync + 'static) {
        let text = Arc::new(text);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match self.0.accept().await {
                Ok((stream, _)) => {
                    let answering = answer(stream, Arc::clone(&text));
                    tokio::spawn(async move {
                        answering.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection for metrics: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

async fn answer<F>(stream: TcpStream, text: Arc<F>)
where
    F: Fn() -> String + Send + Sync + 'static,
{
    let service = service_fn(move |_request| {
        let text = Arc::clone(&text);
        async move {
            let made = tokio::task::spawn_blocking(move || text()).await;
            let body = Full::new(Bytes::from(made.unwrap_or_default()));
            Response::builder().header(CONTENT_TYPE, TEXT).body(body)
        }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT);
    // A client that is none of HTTP, or went away, is its own trouble.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn request(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn whoever_asks_gets_the_text_and_garbage_gets_none() {
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = MetricsListener::bind(address).await.unwrap();
        let address = listener.address().unwrap();
        let taken = MetricsListener::bind(address).await.unwrap_err();
        assert!(taken.to_string().contains(&address.to_string()), "{taken}");
        let serving = tokio::spawn(listener.serve(|| "up 1\n".to_owned()));
        let get = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        for _ in 0..MAX_CONNECTIONS + 1 {
            let answer = request(address, get).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains(TEXT), "{answer}");
            assert!(answer.ends_with("\r\n\r\nup 1\n"), "{answer}");
        }
        let answer = request(address, "\0\u{1}garbage\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        serving.abort();
    }
}
