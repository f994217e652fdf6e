//! Archives built here, good and hostile.

use tar::{Builder, Header};

use super::*;

enum Item<'a> {
    File(&'a str, &'a [u8]),
    Dir(&'a str),
    Link(&'a str, &'a str),
    Other(&'a str, u8),
}

/// A tar archive as PostgreSQL frames it: plain names, no extensions.
fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_ustar();
        let (name, kind, mode, content): (_, _, _, &[u8]) = match *item {
            Item::File(name, content) => (name, EntryType::Regular, 0o640, content),
            Item::Dir(name) => (name, EntryType::Directory, 0o4750, b""),
            Item::Link(name, target) => {
                header.as_ustar_mut().unwrap().linkname[..target.len()]
                    .copy_from_slice(target.as_bytes());
                (name, EntryType::Symlink, 0o777, b"")
            }
            Item::Other(name, kind) => (name, EntryType::new(kind), 0o600, b""),
        };
        // set_path() would refuse hostile names.
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn tablespace(oid: u32, directory: &Path) -> Tablespace {
    Tablespace {
        oid,
        server_location: "/server".into(),
        directory: directory.into(),
        in_place: false,
    }
}

fn main_archive(target: &Path, tablespaces: Vec<Tablespace>) -> Destination {
    Destination::Main {
        target: target.into(),
        tablespaces,
        map: TablespaceMap::default(),
    }
}

fn unpack_items(target: &Path, items: &[Item<'_>]) -> Result<Unpacked, UnpackError> {
    unpack(
        &archive(items)[..],
        &main_archive(target, vec![]),
        ManifestChecksums::Crc32c,
    )
}

#[test]
fn files_directories_and_links_with_their_modes() {
    let dir = tempfile::tempdir().unwrap();
    let items = [
        Item::File("backup_label", b"123456789"),
        Item::Dir("pg_tblspc"),
        Item::Link("pg_tblspc/16384", "/server"),
        Item::Link("pg_tblspc/16999", "/made/later"),
        Item::Dir("./global/"),
        Item::File("global/pg_control", b""),
    ];
    let destination = main_archive(dir.path(), vec![tablespace(16384, Path::new("/here"))]);
    let unpacked = unpack(
        &archive(&items)[..],
        &destination,
        ManifestChecksums::Crc32c,
    )
    .unwrap();
    let mode = |name: &str| {
        fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(mode("backup_label"), 0o640);
    assert_eq!(mode("global"), 0o750, "without the set-user-id bit");
    assert_eq!(
        fs::read(dir.path().join("backup_label")).unwrap(),
        b"123456789"
    );
    let link = |oid: &str| fs::read_link(dir.path().join("pg_tblspc").join(oid)).unwrap();
    assert_eq!(link("16384"), Path::new("/here"));
    assert_eq!(link("16999"), Path::new("/made/later"));
    assert_eq!(
        unpacked.late_links,
        [(dir.path().join("pg_tblspc/16999"), "/made/later".into())]
    );
    let names: Vec<_> = unpacked
        .files
        .iter()
        .map(|file| (&*file.path, file.size))
        .collect();
    assert_eq!(
        names,
        [(&b"backup_label"[..], 9), (b"global/pg_control", 0)]
    );
    assert_eq!(unpacked.files[0].checksum.to_string(), "839206e3");
}

#[test]
fn a_tablespace_is_named_by_its_link() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(&[
        Item::Dir("PG_15_202209061"),
        Item::File("PG_15_202209061/1", b"x"),
    ]);
    let destination = Destination::Tablespace(tablespace(16384, dir.path()));
    let unpacked = unpack(&bytes[..], &destination, ManifestChecksums::None).unwrap();
    assert_eq!(
        &*unpacked.files[0].path,
        b"pg_tblspc/16384/PG_15_202209061/1"
    );
    assert!(dir.path().join("PG_15_202209061/1").exists());
}

#[test]
fn what_a_mirror_must_not_have_is_checksummed_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let items = [
        Item::File("walstream.mirror", b"1"),
        Item::File("standby.signal", b""),
        Item::Dir("sub"),
        Item::File("sub/standby.signal", b""),
    ];
    let unpacked = unpack_items(dir.path(), &items).unwrap();
    assert_eq!(unpacked.dropped, ["walstream.mirror", "standby.signal"]);
    assert_eq!(unpacked.files.len(), 3);
    assert!(
        !dir.path().join("walstream.mirror").exists()
            && dir.path().join("sub/standby.signal").exists()
    );
}

#[test]
fn nothing_is_written_outside_the_root() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let hostile: [&[Item<'_>]; 11] = [
        &[Item::File("../evil", b"x")],
        &[Item::File("/evil", b"x")],
        &[Item::File("a/../../evil", b"x")],
        &[Item::File("", b"x")],
        &[Item::File(".", b"x")],
        &[Item::Dir("..")],
        &[Item::Link("base", "..")],
        &[Item::Link("pg_tblspc/x", "/")],
        &[Item::Dir("pg_tblspc"), Item::Link("pg_tblspc/1", "..")],
        &[Item::Other("hard", b'1')],
        &[Item::Other("device", b'3')],
    ];
    for (index, items) in hostile.iter().enumerate() {
        fs::create_dir(&root).unwrap();
        let error = unpack_items(&root, items).unwrap_err();
        assert!(
            matches!(error, UnpackError::Name { .. } | UnpackError::Kind { .. }),
            "{index}: {error}"
        );
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0, "{index}");
    }
}

#[test]
fn a_file_behind_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let items = [
        Item::Dir("pg_tblspc"),
        Item::Link("pg_tblspc/1", elsewhere.path().to_str().unwrap()),
        Item::File("pg_tblspc/1/evil", b"x"),
    ];
    let error = unpack_items(dir.path(), &items).unwrap_err();
    assert!(matches!(error, UnpackError::Name { .. }), "{error}");
    let over = [
        Item::Dir("d"),
        Item::Dir("pg_tblspc"),
        Item::Link("pg_tblspc/2", "/x"),
        Item::Dir("pg_tblspc/2"),
    ];
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        unpack_items(dir.path(), &over),
        Err(UnpackError::Name { .. })
    ));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_there_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let error =
        unpack_items(dir.path(), &[Item::File("a", b"1"), Item::File("a", b"2")]).unwrap_err();
    assert!(
        matches!(
            error,
            UnpackError::Storage {
                operation: "create",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn every_cut_within_an_entry_is_noticed() {
    let bytes = archive(&[Item::File("a", &[7; 700]), Item::File("b", b"")]);
    let whole = [512 + 1024, 2 * 512 + 1024, bytes.len() - 512, bytes.len()];
    for cut in (0..=bytes.len()).filter(|cut| cut % 256 == 0 || cut % 512 == 1) {
        let dir = tempfile::tempdir().unwrap();
        let result = unpack(
            &bytes[..cut],
            &main_archive(dir.path(), vec![]),
            ManifestChecksums::None,
        );
        // Servers before 15 send no end mark, so an end between entries is an end.
        let between = cut == 0 || whole.contains(&cut) || cut > 2 * 512 + 1024 + 512;
        assert_eq!(result.is_ok(), between, "cut to {cut}: {result:?}");
    }
}

#[test]
fn damaged_headers_and_bytes_after_the_end_are_refused() {
    let bytes = archive(&[Item::File("a", b"1")]);
    for at in [0, 100, 124, 148, 156, 257] {
        let mut bad = bytes.clone();
        bad[at] ^= 0x08;
        let dir = tempfile::tempdir().unwrap();
        let result = unpack(
            &bad[..],
            &main_archive(dir.path(), vec![]),
            ManifestChecksums::None,
        );
        assert!(
            matches!(result, Err(UnpackError::Read(_))),
            "byte {at}: {result:?}"
        );
    }
    let mut more = bytes;
    more.push(1);
    let dir = tempfile::tempdir().unwrap();
    let result = unpack(
        &more[..],
        &main_archive(dir.path(), vec![]),
        ManifestChecksums::None,
    );
    assert!(matches!(result, Err(UnpackError::Trailing)), "{result:?}");
}
