//! `walsender verifier` and the options of `walsender serve` that say who may connect.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use walstream_tests::{
    Finished, Program, Running, SHORT, Signal, Workdir, server_version, wait_for,
};

use crate::sender_auth::RECORDING;

struct Scene {
    work: Workdir,
}

impl Scene {
    fn new() -> Result<Self> {
        let work = Workdir::new()?;
        fs::copy(RECORDING, work.join("recording"))?;
        work.own(&work.join("recording"))?;
        Ok(Self { work })
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf> {
        let path = self.work.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        self.work.own(&path)?;
        Ok(path)
    }

    /// The line that the program makes.
    fn verifier(&self, user: &str, password: &str) -> Result<String> {
        let program = self.work.program("walsender")?.args(["verifier", user]);
        Ok(program
            .stdin(&format!("{password}\nrest"))
            .succeed(SHORT)?
            .stdout)
    }

    fn serve(&self, listen: &str, options: &[&str]) -> Result<Program> {
        let program = self.work.program("walsender")?;
        Ok(program
            .args(["serve", "--recording", "recording", "--listen", listen])
            .args(options))
    }

    fn log_in(&self, conninfo: &str, more: &str) -> Result<Finished> {
        let psql = self.work.external(&server_version(15)?.client("psql"));
        let conninfo = format!("{conninfo} replication=1 {more}");
        psql.args(["-XAtw", "-c", "IDENTIFY_SYSTEM", "-d", &conninfo])
            .run(SHORT)
    }
}

/// How to connect to a sender that listens.
fn conninfo(running: &mut Running) -> Result<String> {
    running.wait_for_output("connect with: ", SHORT)?;
    let stdout = running.stdout();
    let (_, conninfo) = stdout
        .split_once("connect with: ")
        .context("the line is there")?;
    let conninfo = conninfo
        .trim()
        .strip_suffix(" user=postgres")
        .context("it names the user")?;
    Ok(conninfo.replace("0.0.0.0", "127.0.0.1"))
}

#[test]
fn users_are_made_and_files_are_read_again() -> Result<()> {
    let scene = Scene::new()?;
    let users = scene.verifier("standby", "pw")? + &scene.verifier("o:ther", "pw2")?;
    scene.write("users", &users, 0o600)?;
    scene.write("hba", "host replication all all scram-sha-256\n", 0o644)?;
    // Every address of this machine, which is not only loopback.
    let mut serving = scene
        .serve("0.0.0.0:0", &["--auth-file", "users", "--hba", "hba"])?
        .start()?;
    let conninfo = conninfo(&mut serving)?;
    let is_in =
        |more: &str| Ok::<_, anyhow::Error>(scene.log_in(&conninfo, more)?.code() == Some(0));
    assert!(is_in("user=standby password=pw")?);
    assert!(is_in("user=o:ther password=pw2")?);
    assert!(!is_in("user=standby password=pw2")?);
    // A broken file is named in the log, and changes nothing.
    scene.write(
        "hba",
        "host replication all all scram-sha-256\nhost nonsense\n",
        0o644,
    )?;
    serving.signal(Signal::HUP)?;
    wait_for("the complaint", SHORT, || {
        Ok(serving
            .stderr()
            .contains("line 2 of \"hba\": end-of-line before role"))
    })?;
    assert!(is_in("user=standby password=pw")?);
    scene.write(
        "hba",
        "host replication standby all reject\nhost replication all all scram-sha-256\n",
        0o644,
    )?;
    serving.signal(Signal::HUP)?;
    wait_for("the new rules", SHORT, || {
        Ok(serving.stderr().contains("certificates reloaded"))
    })?;
    let refused = scene.log_in(&conninfo, "user=standby password=pw")?;
    refused.expect_failure(
        2,
        &["pg_hba.conf rejects replication connection for host \"127.0.0.1\", user \"standby\""],
    )?;
    assert!(is_in("user=o:ther password=pw2")?);
    // What the client is not told stands in the log; passwords do not.
    assert!(!is_in("user=ghost password=hunter2")?);
    let log = serving.stderr();
    assert!(
        log.contains("there is no verifier of user \\\"ghost\\\"")
            || log.contains("there is no verifier of user \"ghost\""),
        "{log}"
    );
    assert!(
        !log.contains("hunter2") && !log.contains("SCRAM-SHA-256$"),
        "{log}"
    );
    assert_eq!(serving.terminate(SHORT)?.code(), Some(0));
    Ok(())
}

#[test]
fn what_would_let_the_wrong_people_in_does_not_start() -> Result<()> {
    let scene = Scene::new()?;
    let users = scene.verifier("standby", "pw")?;
    scene.write("users", &users, 0o600)?;
    scene.write("open", &users, 0o644)?;
    scene.write("md5", "u:md5a3556571e93b0d20722ba62be61e8c2d\n", 0o600)?;
    scene.write("scram", "host replication all all scram-sha-256\n", 0o644)?;
    scene.write("group", "\nhost replication +g all trust\n", 0o644)?;
    for (options, expected) in [
        (
            &[][..],
            &[
                "cannot listen at 0.0.0.0:0: other machines could reach it",
                "--auth-file",
                "--hba",
            ][..],
        ),
        (
            &["--auth-file", "open"],
            &["\"open\" has group or world access", "0600"],
        ),
        (&["--auth-file", "missing"], &["could not read \"missing\""]),
        (
            &["--auth-file", "md5"],
            &[
                "line 1 of \"md5\": user \"u\": this is an MD5 hash",
                "walsender verifier",
            ],
        ),
        (
            &["--hba", "scram"],
            &["line 1 of \"scram\" asks for a password", "--auth-file"],
        ),
        (
            &["--hba", "group"],
            &["line 2 of \"group\": \"+g\": groups are not known here"],
        ),
        (
            &["--hba", "missing"],
            &["could not open file of rules \"missing\""],
        ),
        (&["--tls-cert", "users"], &["--tls-key"]),
        (&["--tls-min-version", "SSLv3"], &["TLSv1.2 or TLSv1.3"]),
    ] {
        let finished = scene.serve("0.0.0.0:0", options)?.run(SHORT)?;
        finished.expect_failure(2, expected)?;
    }
    let empty = scene
        .work
        .program("walsender")?
        .args(["verifier", "u"])
        .run(SHORT)?;
    empty.expect_failure(1, &["the password is empty"])
}
