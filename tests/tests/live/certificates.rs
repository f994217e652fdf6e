//! Certificates of the tests' own authority, made with `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A directory with `ca.crt`, `other-ca.crt`, and certificates that they signed.
pub(crate) struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    /// Two authorities: `ca` and `other-ca`.
    pub(crate) fn new() -> Result<Self> {
        let this = Self {
            directory: tempfile::tempdir()?,
        };
        // The server's programs run as another user and read the authority's certificate here.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(this.directory.path(), open)?;
        for name in ["ca", "other-ca"] {
            this.self_signed(
                name,
                &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
                &[],
            )?;
        }
        Ok(this)
    }

    /// Path of `NAME.crt`, `NAME.key`, and so on.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// `NAME.crt` and `NAME.key`, signed by itself.
    pub(crate) fn self_signed(&self, name: &str, key: &[&str], more: &[&str]) -> Result<()> {
        let (crt, key_file) = (
            self.path(&format!("{name}.crt")),
            self.path(&format!("{name}.key")),
        );
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-nodes", "-days", "2", "-subj"])
            .arg(format!("/CN={name}"));
        command
            .args(key)
            .args(more)
            .arg("-keyout")
            .arg(key_file)
            .arg("-out")
            .arg(crt);
        run(&mut command)
    }

    /// `NAME.crt` and `NAME.key`, signed by `ca`. `names` is a `subjectAltName`, such as `DNS:a,IP:127.0.0.1`.
    pub(crate) fn signed(&self, name: &str, names: Option<&str>) -> Result<()> {
        let names = names
            .map(|names| format!("subjectAltName={names}\n"))
            .unwrap_or_default();
        self.sign(name, Some(&format!("basicConstraints=CA:FALSE\n{names}")))
    }

    /// The same without any extension: of version 1, where `openssl` is older than 3.2.
    pub(crate) fn signed_plainly(&self, name: &str) -> Result<()> {
        self.sign(name, None)
    }

    fn sign(&self, name: &str, extensions: Option<&str>) -> Result<()> {
        let file = |ending: &str| self.path(&format!("{name}.{ending}"));
        let mut request = Command::new("openssl");
        request.args([
            "req", "-new", "-nodes", "-newkey", "rsa:2048", "-sha384", "-subj",
        ]);
        request.arg(format!("/CN={name}"));
        request
            .arg("-keyout")
            .arg(file("key"))
            .arg("-out")
            .arg(file("csr"));
        run(&mut request)?;
        let mut sign = Command::new("openssl");
        sign.args([
            "x509",
            "-req",
            "-days",
            "2",
            "-sha384",
            "-CAcreateserial",
            "-in",
        ])
        .arg(file("csr"));
        if let Some(extensions) = extensions {
            std::fs::write(file("ext"), extensions)?;
            sign.arg("-extfile").arg(file("ext"));
        }
        sign.arg("-CA")
            .arg(self.path("ca.crt"))
            .arg("-CAkey")
            .arg(self.path("ca.key"));
        sign.arg("-out").arg(file("crt"));
        run(&mut sign)
    }

    /// `FILE`, a revocation list of `ca` that holds these certificates.
    pub(crate) fn revoke(&self, file: &str, names: &[&str]) -> Result<()> {
        let database = self.path(&format!("{file}.txt"));
        std::fs::write(&database, "")?;
        let configuration = self.path(&format!("{file}.cnf"));
        let serial = self.path(&format!("{file}.number"));
        std::fs::write(&serial, "01")?;
        // The number makes it a list of version 2.
        let text = "[ca]\ndefault_ca=d\n[d]\ndatabase=DB\ndefault_md=sha256\ndefault_crl_days=2\ncrlnumber=NUMBER\n";
        let text = text.replace("DB", &database.display().to_string());
        let text = text.replace("NUMBER", &serial.display().to_string());
        std::fs::write(&configuration, text)?;
        let command = || {
            let mut command = Command::new("openssl");
            command.arg("ca").arg("-config").arg(&configuration);
            command
                .arg("-cert")
                .arg(self.path("ca.crt"))
                .arg("-keyfile")
                .arg(self.path("ca.key"));
            command
        };
        for name in names {
            run(command()
                .arg("-revoke")
                .arg(self.path(&format!("{name}.crt"))))?;
        }
        run(command().arg("-gencrl").arg("-out").arg(self.path(file)))
    }

    /// The text of a file.
    pub(crate) fn text(&self, file: &str) -> Result<String> {
        read(&self.path(file))
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .context("openssl is needed for the tests of TLS")?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
