//! The header of a member of a tar archive, byte for byte as PostgreSQL writes it.
//!
//! ```text
//!   0 name 100    124 size 12    156 type 1       265 user 32        345 prefix 155, empty
//! 100 mode 8      136 mtime 12   157 link 100     297 group 32       500 zeros 12
//! 108 uid 8       148 sum 8      257 ustar, zero  329 major 8
//! 116 gid 8                      263 version 00   337 minor 8
//! ```
//!
//! # Source
//! `tarCreateHeader` in `src/port/tar.c`.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use super::error::BackupError;

/// Size of a header, and of what members are padded to, in bytes.
pub(super) const BLOCK: usize = 512;

const CHECKSUM_START: usize = 148;
const CHECKSUM_END: usize = 156;
/// Most bytes of a name and of a link's target.
const MAX_NAME: usize = 99;
/// Name of the user and group, whoever the files belong to.
const OWNER: &[u8] = b"postgres";

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    File,
    Directory,
    /// A symbolic link to this.
    Link(&'a [u8]),
}

/// What a header says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Permissions, without the kind of file.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Size in bytes; of files only.
    pub(super) size: u64,
    /// Last change, in seconds since 1970-01-01 UTC.
    pub(super) mtime_unix_s: i64,
}

impl Attributes {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            size: metadata.len(),
            mtime_unix_s: metadata.mtime(),
        }
    }
}

/// The header of a member.
pub(super) fn header(
    name: &[u8],
    kind: Kind<'_>,
    attributes: &Attributes,
) -> Result<Vec<u8>, BackupError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if name.len() > MAX_NAME {
        return Err(BackupError::NameTooLong { name: text(name) });
    }
    let (tag, target, size) = match kind {
        Kind::File => (b'0', &b""[..], attributes.size),
        Kind::Directory => (b'5', &b""[..], 0),
        Kind::Link(target) if target.len() > MAX_NAME => {
            return Err(BackupError::LinkTooLong {
                name: text(name),
                target: text(target),
            });
        }
        Kind::Link(target) => (b'2', target, 0),
    };
    let mut out = Vec::with_capacity(BLOCK);
    let slash: &[u8] = if kind == Kind::File { b"" } else { b"/" };
    field(&mut out, &[name, slash].concat(), 100);
    number(&mut out, 8, u64::from(attributes.mode));
    number(&mut out, 8, u64::from(attributes.uid));
    number(&mut out, 8, u64::from(attributes.gid));
    number(&mut out, 12, size);
    number(&mut out, 12, attributes.mtime_unix_s.cast_unsigned());
    // The sum is taken with spaces in its own place.
    field(&mut out, b"        ", CHECKSUM_END - CHECKSUM_START);
    out.push(tag);
    field(&mut out, target, 100);
    field(&mut out, b"ustar", 6);
    field(&mut out, b"00", 2);
    field(&mut out, OWNER, 32);
    field(&mut out, OWNER, 32);
    number(&mut out, 8, 0);
    number(&mut out, 8, 0);
    out.resize(BLOCK, 0);
    let mut sum = Vec::new();
    number(&mut sum, 8, out.iter().map(|&byte| u64::from(byte)).sum());
    if let Some(place) = out.get_mut(CHECKSUM_START..CHECKSUM_END) {
        place.copy_from_slice(&sum);
    }
    Ok(out)
}

/// Zeros that follow a member of this size, in bytes.
pub(super) const fn padding(size: u64) -> usize {
    // The rest is below a block's size.
    #[expect(clippy::cast_possible_truncation)]
    let rest = (size % BLOCK as u64) as usize;
    (BLOCK - rest) % BLOCK
}

fn field(out: &mut Vec<u8>, bytes: &[u8], width: usize) {
    let end = out.len() + width;
    out.extend(bytes.iter().take(width));
    out.resize(end, 0);
}

/// Octal digits and a space; what is too large for them in binary, as GNU's tar has it.
///
/// # Source
/// `print_tar_number` in `src/port/tar.c`.
fn number(out: &mut Vec<u8>, width: usize, value: u64) {
    let digits = width - 1;
    if value >> (digits * 3).min(63) == 0 {
        out.extend_from_slice(format!("{value:0digits$o} ").as_bytes());
    } else {
        out.push(0x80);
        let bytes = value.to_be_bytes();
        let skipped = bytes.len().saturating_sub(digits);
        out.resize(out.len() + digits.saturating_sub(bytes.len()), 0);
        out.extend(bytes.iter().skip(skipped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTES: Attributes = Attributes {
        mode: 0o600,
        uid: 26,
        gid: 26,
        size: 8193,
        mtime_unix_s: 1_700_000_000,
    };

    fn read(bytes: &[u8]) -> tar::Header {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(bytes);
        header
    }

    #[test]
    fn another_reader_finds_what_was_written() {
        let name = [b'n'; MAX_NAME];
        let header = read(&header(&name, Kind::File, &ATTRIBUTES).unwrap());
        assert_eq!(&*header.path_bytes(), name);
        assert_eq!(
            (header.size().unwrap(), header.mode().unwrap()),
            (8193, 0o600)
        );
        assert_eq!(
            (header.uid().unwrap(), header.mtime().unwrap()),
            (26, 1_700_000_000)
        );
        assert_eq!(header.username().unwrap(), Some("postgres"));
        let sum: u32 = header.as_bytes().iter().map(|&byte| u32::from(byte)).sum();
        let own: u32 = header.as_bytes()[148..156]
            .iter()
            .map(|&byte| u32::from(byte))
            .sum();
        assert_eq!(header.cksum().unwrap(), sum - own + 8 * 32);
        assert_eq!(&header.as_bytes()[100..108], b"0000600 ");
    }

    #[test]
    fn directories_and_links_end_with_a_slash_and_have_no_size() {
        let directory = read(&header(b"base", Kind::Directory, &ATTRIBUTES).unwrap());
        assert_eq!(
            (&*directory.path_bytes(), directory.size().unwrap()),
            (&b"base/"[..], 0)
        );
        assert!(directory.entry_type().is_dir());
        let link = read(&header(b"pg_tblspc/1", Kind::Link(b"/ts"), &ATTRIBUTES).unwrap());
        assert_eq!(link.link_name_bytes().as_deref(), Some(&b"/ts"[..]));
        assert!(link.entry_type().is_symlink());
        assert!(matches!(
            header(&[b'x'; 100], Kind::File, &ATTRIBUTES),
            Err(BackupError::NameTooLong { .. })
        ));
        let long = header(b"x", Kind::Link(&[b'y'; 100]), &ATTRIBUTES);
        assert!(matches!(long, Err(BackupError::LinkTooLong { .. })));
    }

    #[test]
    fn sizes_of_8_gib_and_more_fit() {
        for size in [(1 << 33) - 1, 1 << 33, u64::MAX >> 1] {
            let header =
                read(&header(b"x", Kind::File, &Attributes { size, ..ATTRIBUTES }).unwrap());
            assert_eq!(header.size().unwrap(), size);
        }
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
