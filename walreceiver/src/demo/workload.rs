//! [`Workload`]: clients that change the catalog, and count what the server acknowledged to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use super::DemoError;
use crate::connection::{ConnInfo, Connection, ConnectionError, Purpose};

/// Clients at a time.
const CLIENTS: u32 = 4;
/// Every how many rows a client makes a table, too.
const ROWS_PER_TABLE: u64 = 10;
/// The database that the clients work in.
pub(super) const DATABASE: &str = "sales";

/// Clients at work. Each commits one row after the other, and a table now and then; every statement is a transaction
/// of its own, and the server acknowledges it when it is committed.
#[derive(Debug)]
pub(super) struct Workload {
    clients: JoinSet<Acknowledged>,
    committed: Arc<AtomicU64>,
}

/// What a server acknowledged to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    client: u32,
    /// Rows 1 up to this are committed.
    rows: u64,
    /// Tables with these numbers are.
    tables: Vec<u64>,
}

/// What of it was found in a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) acknowledged: u64,
    pub(super) found: u64,
}

impl Workload {
    /// Makes the database and lets the clients begin.
    pub(super) async fn start(server: &ConnInfo) -> Result<Self, DemoError> {
        let mut connection = Connection::connect(server, Purpose::Sql).await?;
        connection
            .query(&format!("CREATE DATABASE {DATABASE}"))
            .await?;
        connection.terminate().await;
        let conninfo = server.with_parameter("dbname", DATABASE)?;
        let mut connection = Connection::connect(&conninfo, Purpose::Sql).await?;
        connection
            .query("CREATE TABLE ledger (client int, number bigint, note text, PRIMARY KEY (client, number))")
            .await?;
        connection.terminate().await;
        let committed = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for client in 1..=CLIENTS {
            let connection = Connection::connect(&conninfo, Purpose::Sql).await?;
            clients.spawn(work(client, connection, Arc::clone(&committed)));
        }
        Ok(Self { clients, committed })
    }

    /// Commits that were acknowledged so far.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Waits until every client has lost the server, and gives what was acknowledged to each.
    pub(super) async fn ended(self) -> Vec<Acknowledged> {
        self.clients.join_all().await
    }
}

/// Commits until the server is lost.
async fn work(client: u32, mut connection: Connection, committed: Arc<AtomicU64>) -> Acknowledged {
    let mut acknowledged = Acknowledged {
        client,
        rows: 0,
        tables: Vec::new(),
    };
    // Ends with the server, which is what it is for.
    let _ = commit(&mut connection, &mut acknowledged, &committed).await;
    acknowledged
}

async fn commit(
    connection: &mut Connection,
    acknowledged: &mut Acknowledged,
    committed: &AtomicU64,
) -> Result<(), ConnectionError> {
    let client = acknowledged.client;
    loop {
        let number = acknowledged.rows + 1;
        let row = format!(
            "INSERT INTO ledger VALUES ({client}, {number}, 'entry {number} of client {client}')"
        );
        connection.query(&row).await?;
        acknowledged.rows = number;
        committed.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(ROWS_PER_TABLE) {
            let table = format!(
                "CREATE TABLE journal_{client}_{number} (id int PRIMARY KEY, amount numeric)"
            );
            connection.query(&table).await?;
            acknowledged.tables.push(number);
            committed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Looks in a server for everything that was acknowledged.
pub(super) async fn look_for(
    server: &ConnInfo,
    acknowledged: &[Acknowledged],
) -> Result<Found, DemoError> {
    let conninfo = server.with_parameter("dbname", DATABASE)?;
    let mut connection = Connection::connect(&conninfo, Purpose::Sql).await?;
    let mut result = Found {
        acknowledged: 0,
        found: 0,
    };
    for Acknowledged {
        client,
        rows,
        tables,
    } in acknowledged
    {
        result.acknowledged += rows + tables.len() as u64;
        let sql = format!(
            "SELECT count(*) FROM ledger WHERE client = {client} AND number BETWEEN 1 AND {rows} \
             AND note = 'entry ' || number || ' of client ' || client"
        );
        result.found += count(&mut connection, &sql).await?;
        for number in tables {
            // Reads the table's files, not only what the catalog says of it.
            let sql = format!("SELECT 1 + count(*) FROM journal_{client}_{number}");
            result.found += match count(&mut connection, &sql).await {
                Ok(found) => found,
                Err(ConnectionError::Server(_)) => 0,
                Err(error) => return Err(error.into()),
            };
        }
    }
    connection.terminate().await;
    Ok(result)
}

async fn count(connection: &mut Connection, sql: &str) -> Result<u64, ConnectionError> {
    let result = connection.query(sql).await?;
    Ok(result
        .text(0, 0)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0))
}
