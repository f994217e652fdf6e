//! [`S3Server`]: a server of the S3 protocol on a free port of this machine, whose buckets are directories.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as Connections;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::program::Program;
use crate::wait::{SHORT, wait_for_some};

/// The only user, and the secret with which requests must be signed.
const USER: (&str, &str) = ("tester", "the secret of the tester");

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    root: TempDir,
    address: SocketAddr,
    /// `None` while it is stopped.
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Starts one with a bucket `wal`.
    ///
    /// # Errors
    /// When there is no port or no room.
    pub fn start() -> Result<Self> {
        let root = tempfile::tempdir()?;
        fs::create_dir(root.path().join("wal"))?;
        let mut server = Self {
            root,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            runtime: None,
        };
        server.restart()?;
        Ok(server)
    }

    /// Ends all connections and lets no new ones in.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }

    /// Serves the same content at the same address again.
    ///
    /// # Errors
    /// When the port was taken meanwhile.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let files =
            FileSystem::new(self.root.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(USER.0, USER.1));
        let service = service.build();
        let listener = self.listener()?;
        listener.set_nonblocking(true)?;
        self.address = listener.local_addr()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.spawn(serve(listener, service));
        self.runtime = Some(runtime);
        Ok(())
    }

    /// Listens where the server does that is stopped.
    ///
    /// # Errors
    /// When the port was taken meanwhile.
    pub fn listener(&self) -> Result<TcpListener> {
        // A process that another test is about to start holds copies of all sockets until it is another program.
        wait_for_some("the server's port", SHORT, || {
            match TcpListener::bind(self.address) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
                bound => Ok(Some(bound.context("cannot listen")?)),
            }
        })
    }

    /// Where it listens, also while it is stopped.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory of a bucket.
    #[must_use]
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The variables by which a program finds the server.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", USER.0.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", USER.1.to_owned()),
        ]
    }

    /// A program that finds the server.
    #[must_use]
    pub fn known_to(&self, program: Program) -> Program {
        let variables = self.environment();
        variables
            .into_iter()
            .fold(program, |program, (name, value)| program.env(name, value))
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((socket, _)) = listener.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            let connections = Connections::new(TokioExecutor::new());
            // A client that goes away is none of the server's errors.
            let _ = connections
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

/// The names of the files in a directory, sorted; those that the server keeps for itself are left out.
///
/// # Errors
/// When it cannot be read.
pub fn object_names(directory: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}
