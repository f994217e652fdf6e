//! The client side of the wire against a real server: every way to authenticate, to find the server and to find the
//! password; copies, errors, cancellation.

use anyhow::Result;
use walreceiver::connection::{
    BackendMessage, ConnInfo, ConnectError, Connection, ConnectionError, Environment, Purpose,
};
use walreceiver::exit::{Exit, Recovery};
use walstream_tests::{Cluster, ClusterOptions};

const ROLES: &str = "SET password_encryption = 'scram-sha-256';
    CREATE ROLE u_trust LOGIN;
    CREATE ROLE u_scram LOGIN PASSWORD 'Geheim:1';
    CREATE ROLE u_clear LOGIN PASSWORD 'Geheim:1';
    CREATE ROLE u_reject LOGIN PASSWORD 'Geheim:1';
    CREATE ROLE u_repl LOGIN REPLICATION PASSWORD 'Geheim:1';
    SET password_encryption = md5; CREATE ROLE u_md5 LOGIN PASSWORD 'Geheim:1'";

fn server() -> Result<Cluster> {
    let cluster = ClusterOptions::default()
        .hba("host all u_trust 127.0.0.1/32 trust")
        .hba("host all u_scram 127.0.0.1/32 scram-sha-256")
        .hba("host all u_clear 127.0.0.1/32 password")
        .hba("host all u_md5 127.0.0.1/32 md5")
        .hba("host all u_reject 127.0.0.1/32 reject")
        .hba("host replication u_trust 127.0.0.1/32 reject")
        .hba("host replication u_repl,u_scram 127.0.0.1/32 scram-sha-256")
        .start()?;
    cluster.query(ROLES)?;
    Ok(cluster)
}

fn tcp(cluster: &Cluster, more: &str) -> String {
    format!(
        "host=127.0.0.1 port={} dbname=postgres {more}",
        cluster.port()
    )
}

#[expect(clippy::unwrap_used, reason = "the tests' own strings are right")]
async fn connect(text: &str, purpose: Purpose) -> Result<Connection, ConnectError> {
    let environment = Environment::default().with_os_user("nobody");
    Connection::connect(&ConnInfo::resolve(text, &environment).unwrap(), purpose).await
}

#[tokio::test]
async fn authenticates_by_every_method() -> Result<()> {
    let cluster = server()?;
    for (more, expected) in [
        ("user=u_trust", Ok(())),
        ("user=u_trust require_auth=none", Ok(())),
        (
            "user=u_trust require_auth=scram-sha-256",
            Err("server did not complete authentication"),
        ),
        (
            "user=u_trust require_auth=!none",
            Err("server did not complete authentication"),
        ),
        (
            "user=u_trust channel_binding=require",
            Err("channel binding is required, but SSL is not in use"),
        ),
        ("user=u_scram password=Geheim:1", Ok(())),
        (
            "user=u_scram password=Geheim:1 require_auth=scram-sha-256",
            Ok(()),
        ),
        (
            "user=u_scram password=Geheim:1 require_auth=md5",
            Err("server requested scram-sha-256"),
        ),
        (
            "user=u_scram password=falsch",
            Err("FATAL:  password authentication failed for user \"u_scram\""),
        ),
        ("user=u_scram", Err("no password supplied")),
        ("user=u_md5 password=Geheim:1", Ok(())),
        (
            "user=u_md5 password=Geheim:1 require_auth=scram-sha-256",
            Err("server requested md5"),
        ),
        (
            "user=u_md5 password=falsch",
            Err("FATAL:  password authentication failed for user \"u_md5\""),
        ),
        (
            "user=u_clear password=Geheim:1",
            Err("clear text, which is sent only with require_auth=password"),
        ),
        (
            "user=u_clear password=Geheim:1 require_auth=password",
            Ok(()),
        ),
        (
            "user=u_clear password=Geheim:1 require_auth=!md5",
            Err("clear text"),
        ),
        (
            "user=u_clear password=falsch require_auth=password",
            Err("FATAL:  password authentication failed"),
        ),
        (
            "user=u_reject password=Geheim:1",
            Err("FATAL:  pg_hba.conf rejects connection"),
        ),
        ("user=u_nobody password=Geheim:1", Err("FATAL:  ")),
    ] {
        let outcome = connect(&tcp(&cluster, more), Purpose::Sql).await;
        match (outcome, expected) {
            (Ok(mut connection), Ok(())) => {
                let user = connection.query("SELECT current_user").await?;
                assert!(
                    more.starts_with(&format!("user={}", user.text(0, 0).unwrap())),
                    "{more}"
                );
            }
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{more}: {error}");
                assert_eq!(
                    (error.exit(), error.recovery()),
                    (Exit::Denied, Recovery::Permanent),
                    "{more}"
                );
                assert!(!format!("{error} {error:?}").contains("Geheim"), "{more}");
            }
            (outcome, expected) => panic!("{more}: {outcome:?}, expected {expected:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn replication_needs_the_right_and_an_entry() -> Result<()> {
    let cluster = server()?;
    let mut connection = connect(
        &tcp(&cluster, "user=u_repl password=Geheim:1"),
        Purpose::PhysicalReplication,
    )
    .await?;
    let system = connection.query("IDENTIFY_SYSTEM").await?;
    assert_eq!(
        system.columns,
        ["systemid", "timeline", "xlogpos", "dbname"]
    );
    assert_eq!(
        system.text(0, 0),
        Some(
            cluster
                .query("SELECT system_identifier FROM pg_control_system()")?
                .as_str()
        )
    );
    assert_eq!(
        connection.server_version().to_string(),
        cluster.query("SHOW server_version_num")?
    );
    for (more, sqlstate) in [
        ("user=u_scram password=Geheim:1", "42501"),
        ("user=u_trust", "28000"),
        ("user=u_repl password=no", "28P01"),
    ] {
        let error = connect(&tcp(&cluster, more), Purpose::PhysicalReplication)
            .await
            .unwrap_err();
        let walreceiver::connection::AttemptFailure::Session(failure) =
            &error.attempts().last().unwrap().failure
        else {
            panic!("{error}")
        };
        assert_eq!(
            failure.server_error().unwrap().sqlstate,
            sqlstate,
            "{error}"
        );
        assert_eq!(
            (error.exit(), error.recovery()),
            (Exit::Denied, Recovery::Permanent),
            "{error}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn finds_the_password_and_the_service() -> Result<()> {
    let cluster = server()?;
    let home = tempfile::tempdir()?;
    let port = cluster.port();
    let passfile = home.path().join(".pgpass");
    std::fs::write(
        &passfile,
        format!(
            "# mine\n127.0.0.1:{port}:postgres:u_scram:Geheim\\:1\n*:*:replication:u_repl:Geheim\\:1\n"
        ),
    )?;
    std::fs::set_permissions(
        &passfile,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )?;
    std::fs::write(
        home.path().join(".pg_service.conf"),
        format!("[mine]\nhost=127.0.0.1\nport={port}\nuser=u_scram\ndbname=postgres\n"),
    )?;
    let environment = Environment::default()
        .with_home(home.path())
        .with_variable("PGPORT", "1");
    let service = ConnInfo::resolve("service=mine", &environment)?;
    let mut connection = Connection::connect(&service, Purpose::Sql).await?;
    assert_eq!(
        connection.query("SELECT current_user").await?.text(0, 0),
        Some("u_scram")
    );

    // A line for the database `replication` serves physical replication, and that only.
    let uri = ConnInfo::resolve(
        &format!("postgresql://u_repl@127.0.0.1:{port}/postgres"),
        &environment,
    )?;
    Connection::connect(&uri, Purpose::PhysicalReplication).await?;
    let error = Connection::connect(&uri, Purpose::Sql).await.unwrap_err();
    assert!(
        error.to_string().contains("no password supplied"),
        "{error}"
    );

    let variables = environment
        .with_variable("PGPORT", &port.to_string())
        .with_variable("PGHOST", "127.0.0.1");
    let variables = variables
        .with_variable("PGUSER", "u_md5")
        .with_variable("PGPASSWORD", "Geheim:1");
    let variables = variables
        .with_variable("PGDATABASE", "postgres")
        .with_variable("PGAPPNAME", "mine");
    let variables = variables
        .with_variable("PGOPTIONS", "-c statement_timeout=7s")
        .with_variable("PGTZ", "Asia/Tokyo");
    let conninfo =
        ConnInfo::resolve("", &variables)?.with_application_name_default("gp_walreceiver");
    let mut connection = Connection::connect(&conninfo, Purpose::Sql).await?;
    let shown = connection
        .query("SELECT current_user, current_setting('statement_timeout'), current_setting('application_name')")
        .await?;
    assert_eq!(
        [shown.text(0, 0), shown.text(0, 1), shown.text(0, 2)],
        [Some("u_md5"), Some("7s"), Some("mine")]
    );
    assert_eq!(connection.parameter("TimeZone"), Some("Asia/Tokyo"));
    Ok(())
}

#[tokio::test]
async fn uses_the_unix_socket() -> Result<()> {
    let cluster = server()?;
    let environment = Environment::default().with_socket_directory(cluster.scratch());
    let text = format!("port={} user=postgres", cluster.port());
    let conninfo =
        ConnInfo::resolve(&text, &environment)?.with_application_name_default("gp_walreceiver");
    let mut connection = Connection::connect(&conninfo, Purpose::Sql).await?;
    let shown = connection
        .query("SELECT inet_client_addr(), current_setting('application_name')")
        .await?;
    assert_eq!(
        (shown.text(0, 0), shown.text(0, 1)),
        (None, Some("gp_walreceiver"))
    );
    assert_eq!(
        connection.peer(),
        format!(
            "{}/.s.PGSQL.{}",
            cluster.scratch().display(),
            cluster.port()
        )
    );
    let peer = conninfo.with_parameter("requirepeer", "nobody at all")?;
    let error = Connection::connect(&peer, Purpose::Sql).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Denied, "{error}");
    let missing = conninfo.with_parameter("port", "1")?;
    let error = Connection::connect(&missing, Purpose::Sql)
        .await
        .unwrap_err();
    assert_eq!(
        (error.exit(), error.recovery()),
        (Exit::Unreachable, Recovery::Passing),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn streams_wal_and_ends_the_copy() -> Result<()> {
    let cluster = server()?;
    let text = tcp(&cluster, "user=u_repl password=Geheim:1");
    let mut connection = connect(&text, Purpose::PhysicalReplication).await?;
    let error = connection
        .query("START_REPLICATION SLOT missing PHYSICAL 0/1000000")
        .await
        .unwrap_err();
    assert_eq!(
        (error.exit(), error.recovery()),
        (Exit::Unavailable, Recovery::Permanent),
        "{error}"
    );
    connection
        .query("CREATE_REPLICATION_SLOT mine PHYSICAL RESERVE_WAL")
        .await?;

    let position = connection
        .query("IDENTIFY_SYSTEM")
        .await?
        .text(0, 2)
        .unwrap()
        .to_owned();
    connection
        .send_query(&format!("START_REPLICATION SLOT mine PHYSICAL {position}"))
        .await?;
    assert_eq!(
        connection.next_message().await?,
        BackendMessage::CopyBothResponse
    );
    assert!(matches!(
        connection.send_query("IDENTIFY_SYSTEM").await,
        Err(ConnectionError::Copying)
    ));
    let mut second = connect(&text, Purpose::PhysicalReplication).await?;
    let error = second
        .query(&format!("START_REPLICATION SLOT mine PHYSICAL {position}"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.exit(), error.recovery()),
        (Exit::Unavailable, Recovery::Passing),
        "{error}"
    );

    cluster.query("CREATE TABLE t AS SELECT generate_series(1, 100000) AS i")?;
    let mut wal = 0;
    while wal < 4_000_000 {
        if let BackendMessage::CopyData(data) = connection.next_message().await?
            && data.first() == Some(&b'w')
        {
            wal += data.len() - 25;
        }
        while let Some(message) = connection.try_buffered_message()? {
            let BackendMessage::CopyData(data) = message else {
                panic!("{message:?}")
            };
            wal += if data.first() == Some(&b'w') {
                data.len() - 25
            } else {
                0
            };
        }
    }
    connection.send_copy_done().await?;
    let mut tags = Vec::new();
    loop {
        match connection.next_message().await? {
            BackendMessage::CommandComplete(tag) => tags.push(tag),
            BackendMessage::ReadyForQuery => break,
            _ => {}
        }
    }
    assert_eq!(tags, ["START_STREAMING", "START_REPLICATION"]);
    assert_eq!(connection.query("IDENTIFY_SYSTEM").await?.rows.len(), 1);
    connection.terminate().await;
    Ok(())
}

/// The query has a task and a thread of its own: while the test blocks in its wait, nothing else drives it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_command_is_cancelled_and_errors_are_survived() -> Result<()> {
    let cluster = server()?;
    let mut connection = connect(&tcp(&cluster, "user=u_trust"), Purpose::Sql).await?;
    assert_eq!(
        connection
            .query_all("SELECT 1; SELECT 2, NULL; ")
            .await?
            .len(),
        2
    );
    let error = connection.query("SELECT 1/0").await.unwrap_err();
    assert_eq!(error.to_string(), "ERROR:  division by zero");
    let token = connection.cancel_token();
    let query = tokio::spawn(async move {
        let slept = connection.query("SELECT pg_sleep(600)").await;
        (connection, slept)
    });
    walstream_tests::wait_for("the sleep to begin", walstream_tests::SHORT, || {
        Ok(
            cluster.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")?
                == "1",
        )
    })?;
    token.cancel().await?;
    let (mut connection, slept) = query.await?;
    assert_eq!(slept.unwrap_err().server_error().unwrap().sqlstate, "57014");
    assert_eq!(connection.query("SELECT 3").await?.text(0, 0), Some("3"));

    cluster.query(&format!(
        "SELECT pg_terminate_backend({})",
        connection.backend_pid()
    ))?;
    let error = connection.query("SELECT 4").await.unwrap_err();
    assert_eq!(
        (error.exit(), error.recovery()),
        (Exit::Unreachable, Recovery::Passing),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn finds_the_server_of_the_kind_wanted() -> Result<()> {
    let primary = server()?;
    let mut standby = primary.standby(&[])?;
    standby.start()?;
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.local_addr()?.port()
    };
    let (p, s) = (primary.port(), standby.port());
    for (attrs, first, second, expected) in [
        ("any", p, s, Some(p)),
        ("any", dead, s, Some(s)),
        ("primary", s, p, Some(p)),
        ("primary", s, dead, None),
        ("read-write", s, p, Some(p)),
        ("read-only", p, s, Some(s)),
        ("standby", p, s, Some(s)),
        ("standby", p, dead, None),
        ("prefer-standby", p, s, Some(s)),
        ("prefer-standby", p, dead, Some(p)),
    ] {
        let more =
            format!("user=u_repl password=Geheim:1 dbname=postgres target_session_attrs={attrs}");
        let text = format!("host=127.0.0.1,127.0.0.1 port={first},{second} {more}");
        for purpose in [Purpose::Sql, Purpose::PhysicalReplication] {
            let outcome = connect(&text, purpose).await;
            let found = outcome
                .as_ref()
                .ok()
                .map(|connection| connection.peer().to_owned());
            assert_eq!(
                found,
                expected.map(|port| format!("127.0.0.1:{port}")),
                "{attrs} {purpose:?} {outcome:?}"
            );
            if let Err(error) = outcome {
                assert_eq!(error.attempts().len(), 2, "{error}");
                assert_eq!(error.recovery(), Recovery::Passing, "{error}");
            }
        }
    }
    // An error of the server ends the search, as with libpq.
    let text =
        format!("host=127.0.0.1,127.0.0.1 port={p},{s} user=u_repl password=no dbname=postgres");
    assert_eq!(
        connect(&text, Purpose::Sql)
            .await
            .unwrap_err()
            .attempts()
            .len(),
        1
    );
    Ok(())
}

/// `psql` refuses the same strings with the same words.
#[test]
fn bad_strings_are_refused_in_the_words_of_libpq() -> Result<()> {
    let cluster = ClusterOptions::default().create()?;
    for text in [
        "host=a uzer=b",
        "host=a b",
        "host='a",
        "postgresql://host?uzer=a",
        "postgresql://host?zzz",
        "postgresql://host?key=key=value",
        "postgres://[::1",
        "postgres://[]",
        "postgres://[::1]z",
        "postgresql://%zz",
        "postgresql://a%00b",
        "host=a,b port=1,2,3",
        "host=a,b hostaddr=127.0.0.1",
        "sslmode=on",
        "channel_binding=x",
        "target_session_attrs=x",
        "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
        "ssl_max_protocol_version=x",
        "service=none_such",
        "hostaddr=127.0.0.1 connect_timeout=x",
        "hostaddr=127.0.0.1 port=0",
    ] {
        let output = cluster
            .command("psql")
            .env_clear()
            .args(["-XAtw", "-c", "SELECT 1", text])
            .output()?;
        let theirs = String::from_utf8_lossy(&output.stderr).into_owned();
        let environment = Environment::default().with_os_user("nobody");
        let Err(ours) = ConnInfo::resolve(text, &environment) else {
            panic!("{text} is taken; psql says {theirs}")
        };
        // Newer versions quote the keyword as well.
        let same = theirs
            .replace('"', "")
            .trim_end()
            .ends_with(&ours.to_string().replace('"', ""));
        assert!(same, "{text}\nwe say: {ours}\npsql says: {theirs}");
    }
    Ok(())
}
