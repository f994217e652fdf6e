//! [`ServerError`]: what a server said when it refused, and what that means for us.

use std::fmt;

use bytes::Buf;

use crate::exit::{Exit, Recovery};

/// An ErrorResponse or NoticeResponse.
///
/// # Source
/// "Error and Notice Message Fields" in the protocol chapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, or a notice's level; never translated where the server is 9.6 or later.
    pub severity: String,
    /// Five characters. Empty when the server gave none.
    pub sqlstate: String,
    /// What happened, in one line.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// The call stack of SQL functions, or what the server was doing.
    pub context: Option<String>,
}

/// Severity and message in the first line, then detail, hint and context a line each, as libpq shows them.
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:  {}", self.severity, self.message)?;
        for (label, text) in [
            ("DETAIL", &self.detail),
            ("HINT", &self.hint),
            ("CONTEXT", &self.context),
        ] {
            if let Some(text) = text {
                write!(f, "\n{label}:  {text}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

impl ServerError {
    /// Reads the fields of an ErrorResponse or NoticeResponse. Unknown fields are skipped; `None` when the last field does not end.
    #[must_use]
    pub fn parse(mut body: &[u8]) -> Option<Self> {
        let mut error = Self::default();
        let mut unlocalized = None;
        loop {
            let field = body.try_get_u8().ok()?;
            if field == 0 {
                break;
            }
            let length = body.iter().position(|byte| *byte == 0)?;
            let (text, rest) = body.split_at_checked(length)?;
            body = rest.split_first()?.1;
            let text = String::from_utf8_lossy(text).into_owned();
            match field {
                b'S' => error.severity = text,
                b'V' => unlocalized = Some(text),
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                b'W' => error.context = Some(text),
                _ => {}
            }
        }
        error.severity = unlocalized.unwrap_or(error.severity);
        Some(error)
    }

    /// Whether the server closes the connection after this.
    #[must_use]
    pub fn ends_session(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// The exit code that fits. See [`Self::recovery`].
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.classify().0
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.classify().1
    }

    /// By SQLSTATE only, never by text, which is translated.
    ///
    /// # Source
    /// `src/backend/utils/errcodes.txt`; who raises what: `walsender.c` and `slot.c` in `src/backend/replication`,
    /// `ProcessStartupPacket` in `postmaster.c`, `ClientAuthentication` in `auth.c`.
    fn classify(&self) -> (Exit, Recovery) {
        use Recovery::{Passing, Permanent};
        let class = self.sqlstate.get(..2).unwrap_or_default();
        match (self.sqlstate.as_str(), class) {
            // invalid_password, invalid_authorization_specification, insufficient_privilege
            ("42501", _) | (_, "28") => (Exit::Denied, Permanent),
            // invalid_catalog_name: no such database
            ("3D000", _) => (Exit::Usage, Permanent),
            // object_in_use: the slot has another user, who may leave
            ("55006", _) => (Exit::Unavailable, Passing),
            // undefined_object: no such slot; object_not_in_prerequisite_state: the slot is lost; undefined_file: the
            // WAL segment has been removed; feature_not_supported
            ("42704" | "55000" | "58P01" | "0A000", _) => (Exit::Unavailable, Permanent),
            // configuration_limit_exceeded: no free slot
            ("53400", _) => (Exit::Unavailable, Permanent),
            // too_many_connections (and walsenders), connection exceptions, shutting down, crashed, starting up
            ("53300", _) | (_, "08" | "57") => (Exit::Unreachable, Passing),
            // disk full, out of memory; system errors
            (_, "53" | "58") => (Exit::Unavailable, Passing),
            // data_corrupted, index_corrupted
            ("XX001" | "XX002", _) => (Exit::Corrupt, Permanent),
            // internal errors and conflicts pass, if anything does
            (_, "XX" | "40" | "55") => (Exit::Failure, Passing),
            // A server that gives no SQLSTATE could not start a process for us.
            ("", _) => (Exit::Unreachable, Passing),
            _ => (Exit::Failure, Permanent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(sqlstate: &str) -> ServerError {
        ServerError {
            sqlstate: sqlstate.to_owned(),
            ..ServerError::default()
        }
    }

    #[test]
    fn reads_fields_and_shows_them_as_libpq_does() {
        let body = b"SFEHLER\0VFATAL\0C28P01\0Mno\0Dbecause\0Hdo this\0Wwhere\0Fauth.c\0\0";
        let error = ServerError::parse(body).unwrap();
        assert_eq!(
            error.to_string(),
            "FATAL:  no\nDETAIL:  because\nHINT:  do this\nCONTEXT:  where"
        );
        assert_eq!(error.sqlstate, "28P01");
        assert!(error.ends_session());
        let old = ServerError::parse(b"SERROR\0Mx\0\0").unwrap();
        assert_eq!(old.severity, "ERROR");
        assert!(!old.ends_session());
    }

    #[test]
    fn refuses_fields_without_end() {
        for body in [&b""[..], b"S", b"SERROR", b"SERROR\0", b"SERROR\0M"] {
            assert_eq!(ServerError::parse(body), None, "{body:?}");
        }
    }

    #[test]
    fn classifies_by_sqlstate() {
        use Recovery::{Passing, Permanent};
        for (sqlstate, exit, recovery) in [
            ("28P01", Exit::Denied, Permanent),
            ("28000", Exit::Denied, Permanent),
            ("42501", Exit::Denied, Permanent),
            ("57P03", Exit::Unreachable, Passing),
            ("57P01", Exit::Unreachable, Passing),
            ("53300", Exit::Unreachable, Passing),
            ("08006", Exit::Unreachable, Passing),
            ("55006", Exit::Unavailable, Passing),
            ("42704", Exit::Unavailable, Permanent),
            ("55000", Exit::Unavailable, Permanent),
            ("58P01", Exit::Unavailable, Permanent),
            ("58030", Exit::Unavailable, Passing),
            ("53100", Exit::Unavailable, Passing),
            ("3D000", Exit::Usage, Permanent),
            ("XX000", Exit::Failure, Passing),
            ("XX001", Exit::Corrupt, Permanent),
            ("42601", Exit::Failure, Permanent),
            ("", Exit::Unreachable, Passing),
            ("ü", Exit::Failure, Permanent),
        ] {
            assert_eq!(
                (error(sqlstate).exit(), error(sqlstate).recovery()),
                (exit, recovery),
                "{sqlstate}"
            );
        }
    }
}
