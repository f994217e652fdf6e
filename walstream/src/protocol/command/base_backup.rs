//! `BASE_BACKUP` and its options.

use super::manifest_checksums::ManifestChecksums;
use super::option::{GenericOption, OptionValue, parse_bool};
use super::scanner::push_literal;
use super::{CommandError, Grammar};

/// `BASE_BACKUP`. [`BaseBackup::default`] is the command without options.
///
/// # Source
/// `parse_basebackup_options` in `src/backend/backup/basebackup.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseBackup {
    /// Label for `backup_label`; `base backup` when not given.
    pub label: Option<String>,
    /// Whether to estimate the size of each tablespace first.
    pub progress: bool,
    /// How fast the checkpoint before it is.
    pub checkpoint: BackupCheckpoint,
    /// Whether the WAL that it needs is part of it.
    pub wal: bool,
    /// Whether to wait at the end until that WAL is archived.
    pub wait: bool,
    /// Most to send, in units of 1024 bytes a second, 32 to 1048576.
    pub max_rate_kib: Option<u32>,
    /// Whether a `tablespace_map` file replaces the links in `pg_tblspc`.
    pub tablespace_map: bool,
    /// Whether checksums of data pages are verified.
    pub verify_checksums: bool,
    /// Whether there is a manifest, since 13.
    pub manifest: ManifestOption,
    /// Checksums in the manifest; CRC-32C when not given.
    pub manifest_checksums: Option<ManifestChecksums>,
    /// Compression by the server, since 15.
    pub compression: Option<BackupCompression>,
    /// Where the backup goes, since 15; to the client when not given.
    pub target: Option<BackupTarget>,
    /// Whether only what changed since the uploaded manifest's backup is sent, since 17.
    pub incremental: bool,
}

/// How fast the checkpoint before a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupCheckpoint {
    /// Spread over time, to disturb least.
    Spread,
    /// At once.
    Fast,
}

/// Whether a backup has a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestOption {
    /// None.
    No,
    /// One with names as they are where that is possible.
    Yes,
    /// One with all names in hexadecimal digits.
    ForceEncode,
}

/// Compression of a backup's archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupCompression {
    /// How.
    pub algorithm: CompressionAlgorithm,
    /// Level, workers and the like, as `pg_basebackup --compress` takes them after the colon.
    pub detail: Option<String>,
}

/// Compression algorithm.
///
/// # Source
/// `parse_compress_algorithm` in `src/common/compression.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionAlgorithm {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// lz4 frames.
    Lz4,
    /// zstd frames.
    Zstd,
}

/// Where a backup goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupTarget {
    /// `client`, `server`, `blackhole`, or one that an extension adds.
    pub name: String,
    /// What the target needs to know, such as a path.
    pub detail: Option<String>,
}

impl CompressionAlgorithm {
    const NAMES: [(Self, &'static str); 4] = [
        (Self::None, "none"),
        (Self::Gzip, "gzip"),
        (Self::Lz4, "lz4"),
        (Self::Zstd, "zstd"),
    ];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("none", |(_, name)| name)
    }

    /// The algorithm of this name, in small letters or capitals.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(kind, _)| *kind)
    }
}

impl Default for BaseBackup {
    fn default() -> Self {
        Self {
            label: None,
            progress: false,
            checkpoint: BackupCheckpoint::Spread,
            wal: false,
            wait: true,
            max_rate_kib: None,
            tablespace_map: false,
            verify_checksums: true,
            manifest: ManifestOption::No,
            manifest_checksums: None,
            compression: None,
            target: None,
            incremental: false,
        }
    }
}

/// The option that a keyword of before 15 stands for, with its fixed value.
pub(super) fn legacy_option(keyword: &str) -> Option<(&'static str, OptionValue)> {
    Some(match keyword {
        "PROGRESS" => ("progress", OptionValue::None),
        "FAST" => ("checkpoint", OptionValue::Text("fast".to_owned())),
        "WAL" => ("wal", OptionValue::None),
        "NOWAIT" => ("wait", OptionValue::Number(0)),
        "TABLESPACE_MAP" => ("tablespace_map", OptionValue::None),
        "NOVERIFY_CHECKSUMS" => ("verify_checksums", OptionValue::Number(0)),
        _ => return None,
    })
}

/// The name that an option was given by: before 15 some have a keyword for the value that is not the default.
fn given_name(name: &str, grammar: Grammar) -> &str {
    match name {
        _ if grammar.has_option_lists() => name,
        "checkpoint" => "fast",
        "wait" => "nowait",
        "verify_checksums" => "noverify_checksums",
        _ => name,
    }
}

impl BaseBackup {
    /// Reads options, each of which may come once, and checks those that need another.
    pub(super) fn from_options(
        options: &[GenericOption],
        grammar: Grammar,
    ) -> Result<Self, CommandError> {
        let mut backup = Self::default();
        let (mut target_detail, mut compression_detail) = (None, None);
        for (index, option) in options.iter().enumerate() {
            if options
                .iter()
                .take(index)
                .any(|other| other.name == option.name)
            {
                return Err(CommandError::DuplicateOption(
                    given_name(&option.name, grammar).to_owned(),
                ));
            }
            match option.name.as_str() {
                "label" => backup.label = Some(option.string()?),
                "progress" => backup.progress = option.boolean()?,
                "checkpoint" => backup.checkpoint = checkpoint(option)?,
                "wal" => backup.wal = option.boolean()?,
                "wait" => backup.wait = option.boolean()?,
                "max_rate" => backup.max_rate_kib = Some(max_rate(option)?),
                "tablespace_map" => backup.tablespace_map = option.boolean()?,
                "verify_checksums" => backup.verify_checksums = option.boolean()?,
                "manifest" => backup.manifest = manifest(option)?,
                "manifest_checksums" => {
                    let kind = named("checksum algorithm", option, ManifestChecksums::from_name)?;
                    backup.manifest_checksums = Some(kind);
                }
                "compression" => {
                    let algorithm = named(
                        "compression algorithm",
                        option,
                        CompressionAlgorithm::from_name,
                    )?;
                    backup.compression = Some(BackupCompression {
                        algorithm,
                        detail: None,
                    });
                }
                "compression_detail" => compression_detail = Some(option.string()?),
                "target" => {
                    let name = option.string()?;
                    backup.target = Some(BackupTarget { name, detail: None });
                }
                "target_detail" => target_detail = Some(option.string()?),
                "incremental" if grammar.has_incremental_backups() => {
                    backup.incremental = option.boolean()?;
                }
                other => return Err(CommandError::UnknownBackupOption(other.to_owned())),
            }
        }
        if backup.manifest == ManifestOption::No && backup.manifest_checksums.is_some() {
            return Err(CommandError::ChecksumsWithoutManifest);
        }
        match (&mut backup.target, target_detail) {
            (_, None) => {}
            (None, Some(_)) => return Err(CommandError::DetailWithoutTarget),
            (Some(target), Some(_)) if target.name == "client" => {
                return Err(CommandError::DetailForClient);
            }
            (Some(target), detail) => target.detail = detail,
        }
        match (&mut backup.compression, compression_detail) {
            (_, None) => {}
            (None, Some(_)) => return Err(CommandError::DetailWithoutCompression),
            (Some(compression), detail) => compression.detail = detail,
        }
        Ok(backup)
    }

    pub(super) fn format(&self, grammar: Grammar, out: &mut String) {
        let is_list = grammar.has_option_lists();
        let mut options = Vec::new();
        let mut flag = |is_set: bool, list: &str, keyword: &str| {
            if is_set {
                options.push(if is_list {
                    list.to_owned()
                } else {
                    keyword.to_owned()
                });
            }
        };
        flag(self.progress, "PROGRESS", "PROGRESS");
        flag(
            self.checkpoint == BackupCheckpoint::Fast,
            "CHECKPOINT 'fast'",
            "FAST",
        );
        flag(self.wal, "WAL", "WAL");
        flag(!self.wait, "WAIT 0", "NOWAIT");
        flag(self.tablespace_map, "TABLESPACE_MAP", "TABLESPACE_MAP");
        flag(
            !self.verify_checksums,
            "VERIFY_CHECKSUMS 0",
            "NOVERIFY_CHECKSUMS",
        );
        flag(self.incremental, "INCREMENTAL", "INCREMENTAL");
        if let Some(rate) = self.max_rate_kib {
            options.push(format!("MAX_RATE {rate}"));
        }
        let mut text = |name: &str, value: &str| {
            let mut option = format!("{name} ");
            push_literal(&mut option, value);
            options.push(option);
        };
        if let Some(label) = &self.label {
            text("LABEL", label);
        }
        match self.manifest {
            ManifestOption::No => {}
            ManifestOption::Yes => text("MANIFEST", "yes"),
            ManifestOption::ForceEncode => text("MANIFEST", "force-encode"),
        }
        if let Some(kind) = self.manifest_checksums {
            text("MANIFEST_CHECKSUMS", kind.name());
        }
        if let Some(compression) = &self.compression {
            text("COMPRESSION", compression.algorithm.name());
            if let Some(detail) = &compression.detail {
                text("COMPRESSION_DETAIL", detail);
            }
        }
        if let Some(target) = &self.target {
            text("TARGET", &target.name);
            if let Some(detail) = &target.detail {
                text("TARGET_DETAIL", detail);
            }
        }
        out.push_str("BASE_BACKUP");
        match (options.is_empty(), is_list) {
            (true, _) => {}
            (false, true) => {
                out.push_str(" (");
                out.push_str(&options.join(", "));
                out.push(')');
            }
            (false, false) => {
                out.push(' ');
                out.push_str(&options.join(" "));
            }
        }
    }
}

fn checkpoint(option: &GenericOption) -> Result<BackupCheckpoint, CommandError> {
    named("checkpoint type", option, |name| {
        match name.to_ascii_lowercase().as_str() {
            "fast" => Some(BackupCheckpoint::Fast),
            "spread" => Some(BackupCheckpoint::Spread),
            _ => None,
        }
    })
}

fn manifest(option: &GenericOption) -> Result<ManifestOption, CommandError> {
    named("manifest option", option, |name| match parse_bool(name) {
        Some(true) => Some(ManifestOption::Yes),
        Some(false) => Some(ManifestOption::No),
        None if name.eq_ignore_ascii_case("force-encode") => Some(ManifestOption::ForceEncode),
        None => None,
    })
}

fn max_rate(option: &GenericOption) -> Result<u32, CommandError> {
    let rate = option.number()?;
    if (32..=1_048_576).contains(&rate) {
        Ok(rate)
    } else {
        Err(CommandError::MaxRate(rate))
    }
}

fn named<T>(
    what: &'static str,
    option: &GenericOption,
    from_name: impl Fn(&str) -> Option<T>,
) -> Result<T, CommandError> {
    let value = option.string()?;
    from_name(&value).ok_or(CommandError::UnknownValue { what, value })
}
