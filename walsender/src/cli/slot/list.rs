//! `walsender slot list`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use walsender::slot::wal_status::WalStatus;
use walsender::slot::{SavedSlot, SlotStoreError, StoredSlots, ToldSlot, read_slots};
use walsender::status::table::Table;
use walstream::types::FullTransactionId;

/// Lists replication slots with the columns of pg_replication_slots
///
/// It shows what is saved, and what a running sender tells beside it, both brought up to date every few seconds; temporary
/// slots are not among it. Columns that only a running sender knows are empty (null with --json) without one: who uses a
/// slot, and, but for slots that are lost, how much of its WAL is there.
///
/// wal_status is PostgreSQL's: reserved, extended (more than max_wal_size is kept), unreserved (more than
/// --max-slot-wal-keep-size: the next checkpoint of the primary gives it up), lost.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Directory of the slots
    #[arg(long, value_name = "DIR")]
    slots: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A slot as it is shown; null is not known.
///
/// # Source
/// `pg_replication_slots` in `src/backend/catalog/system_views.sql`.
#[derive(Serialize)]
struct Row {
    slot_name: String,
    slot_type: &'static str,
    temporary: bool,
    active: Option<bool>,
    active_pid: Option<u32>,
    xmin: Option<u32>,
    catalog_xmin: Option<u32>,
    restart_lsn: Option<String>,
    wal_status: Option<String>,
    safe_wal_size: Option<i64>,
}

#[derive(Serialize)]
struct Document {
    /// Process id of the sender that runs on the directory.
    used_by: Option<u32>,
    slots: Vec<Row>,
    /// What is wrong with the files of other slots.
    damaged: Vec<String>,
}

const NAMES: [&str; 10] = [
    "slot_name",
    "slot_type",
    "temporary",
    "active",
    "active_pid",
    "xmin",
    "catalog_xmin",
    "restart_lsn",
    "wal_status",
    "safe_wal_size",
];

pub(super) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let StoredSlots {
        slots,
        damaged,
        holder,
        told,
    } = read_slots(&args.slots)?;
    let rows: Vec<_> = slots
        .into_iter()
        .map(|slot| {
            let told = told.iter().find(|told| told.slot_name == slot.name);
            Row::new(slot, holder, told)
        })
        .collect();
    let text = if args.json {
        let document = Document {
            used_by: holder,
            slots: rows,
            damaged: damaged.iter().map(SlotStoreError::to_string).collect(),
        };
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        Table::new(NAMES)
            .with_rows(rows.iter().map(Row::cells))
            .lines()
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    let mut damaged = damaged.into_iter();
    let Some(first) = damaged.next() else {
        return Ok(());
    };
    for error in damaged {
        eprintln!("walsender: error: {error}");
    }
    Err(first.into())
}

impl Row {
    fn new(slot: SavedSlot, holder: Option<u32>, told: Option<&ToldSlot>) -> Self {
        let is_lost = slot.restart_lsn.is_none() && slot.invalidated_at.is_some();
        Self {
            slot_name: slot.name,
            slot_type: "physical",
            temporary: false,
            active: match told {
                Some(told) => Some(told.active_pid.is_some()),
                None => holder.is_none().then_some(false),
            },
            active_pid: told.and_then(|told| told.active_pid),
            xmin: slot.horizon.xmin.map(FullTransactionId::xid),
            catalog_xmin: slot.horizon.catalog_xmin.map(FullTransactionId::xid),
            restart_lsn: slot.restart_lsn.map(|lsn| lsn.to_string()),
            wal_status: match told {
                Some(told) => told.wal_status.clone(),
                None => is_lost.then(|| WalStatus::Lost.name().to_owned()),
            },
            safe_wal_size: told.and_then(|told| told.safe_wal_size),
        }
    }

    fn cells(&self) -> [String; 10] {
        let number =
            |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        let truth = |value: bool| if value { "t" } else { "f" }.to_owned();
        [
            self.slot_name.clone(),
            self.slot_type.to_owned(),
            truth(self.temporary),
            self.active.map(truth).unwrap_or_default(),
            number(self.active_pid),
            number(self.xmin),
            number(self.catalog_xmin),
            self.restart_lsn.clone().unwrap_or_default(),
            self.wal_status.clone().unwrap_or_default(),
            self.safe_wal_size
                .map(|size| size.to_string())
                .unwrap_or_default(),
        ]
    }
}
