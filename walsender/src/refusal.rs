//! [`Refusal`], an error that goes to the client, as PostgreSQL would word it.

use walstream::protocol::ProtocolError;
use walstream::protocol::command::CommandError;
use walstream::protocol::message::ErrorFields;

use crate::backup::BackupError;
use crate::source::SourceError;

/// Whether the connection goes on after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The command failed; the next one may come.
    Error,
    /// The connection ends.
    Fatal,
}

/// An error for the client.
///
/// # Source
/// `src/backend/utils/errcodes.txt`; protocol chapter "Error and Notice Message Fields".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) severity: Severity,
    /// Five characters.
    pub(crate) sqlstate: &'static str,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

impl Severity {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

impl Refusal {
    pub(crate) fn error(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    pub(crate) fn fatal(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Fatal,
            ..Self::error(sqlstate, message)
        }
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As it goes to the client.
    pub(crate) fn fields(&self) -> ErrorFields {
        let mut fields = ErrorFields::new(self.severity.name(), self.sqlstate, &self.message);
        if let Some(detail) = &self.detail {
            fields = fields.with(b'D', detail);
        }
        if let Some(hint) = &self.hint {
            fields = fields.with(b'H', hint);
        }
        fields
    }

    /// `feature_not_supported`.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::error("0A000", message)
    }
}

impl From<ProtocolError> for Refusal {
    fn from(error: ProtocolError) -> Self {
        // After it nothing that follows can be trusted.
        Self::fatal("08P01", error.to_string())
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        Self::error(error.sqlstate(), error.to_string())
    }
}

impl From<BackupError> for Refusal {
    fn from(error: BackupError) -> Self {
        Self::error(error.sqlstate(), error.to_string())
    }
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        match &error {
            // What `errcode_for_file_access` makes of ENOENT.
            SourceError::SegmentRemoved { .. } => Self::error("58P01", error.to_string()),
            // As `WALReadRaiseError` has them: data that is not there, and what the system says.
            SourceError::Short { .. } | SourceError::Damaged { .. } => {
                Self::error("XX001", error.to_string())
            }
            SourceError::Unreadable { .. } => Self::error("58030", error.to_string()),
        }
    }
}
