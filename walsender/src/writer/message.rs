//! [`LogicalMessage`], a record that every tool can show.

use walstream::types::{Oid, RmgrId, TransactionId};
use walstream::wal::encode::{BodyParts, NewRecord};

use super::error::WriterError;

/// A message in the log: a prefix that says whose it is, and bytes. `pg_waldump` shows both, and recovery passes over it.
///
/// # Source
/// `xl_logical_message` in `src/include/replication/message.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whose message it is, without a zero byte.
    pub prefix: &'a str,
    /// The message.
    pub payload: &'a [u8],
    /// Whether it belongs to the transaction `xid`.
    pub is_transactional: bool,
    /// The transaction, 0 for none.
    pub xid: TransactionId,
    /// The database, 0 for none.
    pub database: Oid,
}

impl<'a> LogicalMessage<'a> {
    /// The resource manager, `RM_LOGICALMSG_ID`.
    pub const RMGR: RmgrId = RmgrId(21);

    /// A message that belongs to no transaction.
    #[must_use]
    pub const fn new(prefix: &'a str, payload: &'a [u8]) -> Self {
        Self {
            prefix,
            payload,
            is_transactional: false,
            xid: 0,
            database: 0,
        }
    }

    /// The record; `scratch` holds its data and keeps its memory from one to the next.
    pub(super) fn record<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
    ) -> Result<NewRecord<'s>, WriterError> {
        if self.prefix.as_bytes().contains(&0) {
            return Err(WriterError::Prefix);
        }
        let size = |count: usize| u64::try_from(count).unwrap_or(u64::MAX).to_le_bytes();
        scratch.clear();
        scratch.extend_from_slice(&self.database.to_le_bytes());
        // A bool, and padding.
        scratch.extend_from_slice(&u32::from(self.is_transactional).to_le_bytes());
        scratch.extend_from_slice(&size(self.prefix.len() + 1));
        scratch.extend_from_slice(&size(self.payload.len()));
        scratch.extend_from_slice(self.prefix.as_bytes());
        scratch.push(0);
        scratch.extend_from_slice(self.payload);
        Ok(NewRecord {
            rmgr: Self::RMGR,
            info: 0,
            xid: self.xid,
            body: BodyParts {
                main_data: scratch,
                ..BodyParts::default()
            }
            .into(),
        })
    }

    /// Reads the main data of a record of this kind; `None` when it is none.
    #[must_use]
    pub fn parse(main_data: &'a [u8], xid: TransactionId) -> Option<Self> {
        let mut reader = walstream::read::Reader::new(main_data);
        let database = reader.u32_le().ok()?;
        let is_transactional = reader.u32_le().ok()? & 0xFF != 0;
        let prefix_len = usize::try_from(reader.u64_le().ok()?).ok()?;
        let payload_len = usize::try_from(reader.u64_le().ok()?).ok()?;
        let (prefix, payload) = main_data.get(24..)?.split_at_checked(prefix_len)?;
        Some(Self {
            prefix: std::str::from_utf8(prefix.strip_suffix(&[0])?).ok()?,
            payload: payload.get(..payload_len)?,
            is_transactional,
            xid,
            database,
        })
    }
}

#[cfg(test)]
mod tests {
    use walstream::wal::encode::NewBody;

    use super::*;

    #[test]
    fn reads_back_and_refuses_a_zero_in_the_prefix() {
        let message = LogicalMessage {
            is_transactional: true,
            xid: 7,
            database: 5,
            ..LogicalMessage::new("ledger", b"\0x")
        };
        let mut scratch = Vec::new();
        let record = message.record(&mut scratch).unwrap();
        let NewBody::Parts(parts) = record.body else {
            panic!("it has parts")
        };
        assert_eq!(
            LogicalMessage::parse(parts.main_data, record.xid),
            Some(message)
        );
        for len in 0..parts.main_data.len() {
            assert_eq!(LogicalMessage::parse(&parts.main_data[..len], 7), None);
        }
        let bad = LogicalMessage::new("a\0b", b"");
        assert!(matches!(
            bad.record(&mut Vec::new()),
            Err(WriterError::Prefix)
        ));
    }
}
