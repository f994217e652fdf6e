//! [`SqlSession`], a connection to the server beside us.

use std::future::poll_fn;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::types::PgLsn;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row};
use walstream::Lsn;

use super::error::PrimaryError;

/// An SQL session, which ends when this is dropped: its socket is closed, and the server ends all that the session holds.
#[derive(Debug)]
pub(crate) struct SqlSession {
    pub(crate) client: Client,
    /// What the server tells beside its answers.
    pub(crate) notices: mpsc::UnboundedReceiver<DbError>,
    driver: JoinHandle<()>,
}

impl SqlSession {
    pub(crate) async fn connect(config: &Config) -> Result<Self, PrimaryError> {
        let (client, mut connection) = config
            .connect(NoTls)
            .await
            .map_err(PrimaryError::sql("connect to the primary"))?;
        let (told, notices) = mpsc::unbounded_channel();
        let driver = tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    // Nobody may want to hear it.
                    Some(Ok(AsyncMessage::Notice(notice))) => drop(told.send(notice)),
                    Some(Ok(_)) => {}
                    // Whoever uses the client learns of the error, too.
                    Some(Err(error)) => {
                        return tracing::debug!("the connection to the primary is lost: {error}");
                    }
                    None => return,
                }
            }
        });
        let session = Self {
            client,
            notices,
            driver,
        };
        // Nothing that a person has set for users may end what runs for as long as we do.
        let settings = "SET statement_timeout = 0; SET lock_timeout = 0; \
                        SET idle_in_transaction_session_timeout = 0; SET datestyle = iso";
        session
            .client
            .batch_execute(settings)
            .await
            .map_err(PrimaryError::sql("prepare the session on the primary"))?;
        Ok(session)
    }
}

impl SqlSession {
    /// A session of which nobody reads the notices.
    pub(crate) fn without_notices(mut self) -> Self {
        self.notices.close();
        self
    }
}

impl Drop for SqlSession {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A column that holds an LSN.
pub(crate) fn lsn(row: &Row, index: usize, what: &'static str) -> Result<Lsn, PrimaryError> {
    row.try_get::<_, PgLsn>(index)
        .map(|lsn| Lsn(lsn.into()))
        .map_err(PrimaryError::sql(what))
}
