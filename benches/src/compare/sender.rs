//! WAL from one archive to one receiver over loopback: PostgreSQL's sender and ours with `pg_receivewal --no-sync`, and
//! our pair.
//!
//! PostgreSQL serves the WAL from its `pg_wal`, and ours serves the same directory as an archive: the same files in the
//! same page cache.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use walstream_tests::{Cluster, SHORT, Workdir, wait_for};

use super::processes::postmaster;
use super::{Effort, Report, Runs, Target, command_in, gigabytes, run};
use crate::corpus::Corpus;
use crate::measure::{Measured, Measuring};
use crate::table::Table;

const SEGMENT: u64 = 16 << 20;
/// Least throughput of our pair, as a multiple of PostgreSQL's.
const THROUGHPUT: f64 = 1.5;
/// Most CPU time of our sender, as a multiple of PostgreSQL's.
const SENDER_CPU: f64 = 1.0 / 3.0;

/// Who sends, and who receives.
#[derive(Clone, Copy, Debug)]
struct Pair {
    our_sender: bool,
    our_receiver: bool,
}

impl Pair {
    const ALL: [Self; 3] = [
        Self {
            our_sender: false,
            our_receiver: false,
        },
        Self {
            our_sender: true,
            our_receiver: false,
        },
        Self {
            our_sender: true,
            our_receiver: true,
        },
    ];

    fn name(self) -> String {
        let sender = match self.our_sender {
            true => "walsender serve",
            false => "PostgreSQL",
        };
        let receiver = match self.our_receiver {
            true => "walreceiver receive --no-sync",
            false => "pg_receivewal --no-sync",
        };
        format!("{sender}, {receiver}")
    }
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Of the receiver; its wall time is the pair's.
    receiver: Measured,
    sender_cpu_s: f64,
}

/// Compares.
///
/// # Errors
/// When a program fails or cannot be built, or what was received is not what the server has.
pub fn compare(effort: Effort) -> Result<Report> {
    let corpus = Corpus::cached(effort.corpus_size())?;
    let mut server = corpus.server()?;
    // A copy of a server whose password nobody knows any more.
    let hba = server.data_dir().join("pg_hba.conf");
    let rest = fs::read_to_string(&hba)?;
    let trusted = "host replication all 127.0.0.1/32 trust\n";
    server.write_file(&hba, &format!("{trusted}{rest}"))?;
    server.start()?;
    let workdir = Workdir::new()?;
    let mut all = Pair::ALL.map(|pair| (pair, Runs::new(pair.name()), Runs::new(pair.name())));
    for _ in 0..effort.rounds {
        for (pair, receivers, senders) in &mut all {
            touch_memory(corpus.bytes()?);
            let run = measure(*pair, &corpus, &server, &workdir)?;
            receivers.runs.push(run.receiver);
            senders.runs.push(Measured {
                user_s: run.sender_cpu_s,
                system_s: 0.0,
                ..run.receiver
            });
        }
    }
    let sent = gigabytes((u64::try_from(corpus.segments().len())? - 1) * SEGMENT);
    let mut table = Table::new(&[
        "",
        "GB",
        "wall s",
        "sender CPU s/GB",
        "receiver CPU s/GB",
        "throughput ratio",
        "sender CPU ratio",
    ]);
    let [(_, peer_receivers, peer_senders), ..] = &all;
    let mut targets = Vec::new();
    for (pair, receivers, senders) in &all {
        let throughput = peer_receivers.ratio(receivers, |run| run.wall_s)?;
        let cpu = senders.ratio(peer_senders, Measured::cpu_s)?;
        table.row([
            pair.name(),
            format!("{sent:.2}"),
            receivers.spread(|run| run.wall_s)?.to_string(),
            senders.spread(|run| run.cpu_s() / sent)?.to_string(),
            receivers.spread(|run| run.cpu_s() / sent)?.to_string(),
            throughput.to_string(),
            cpu.to_string(),
        ]);
        if pair.our_sender {
            let name = pair.name();
            targets.push(Target::at_most(
                format!("CPU time of the sender of {name}"),
                cpu.median,
                SENDER_CPU,
            ));
            if pair.our_receiver {
                targets.push(Target::at_least(
                    format!("throughput of {name}"),
                    throughput.median,
                    THROUGHPUT,
                ));
            }
        }
    }
    Ok(Report {
        title: "WAL from an archive over loopback; ratios to PostgreSQL's pair".to_owned(),
        table,
        targets,
    })
}

fn measure(pair: Pair, corpus: &Corpus, server: &Cluster, workdir: &Workdir) -> Result<Run> {
    if !pair.our_sender {
        let postmaster = postmaster(server)?;
        let before = cpu_of_children(postmaster)?;
        let conninfo = format!("host=127.0.0.1 port={} user=postgres", server.port());
        let receiver = receive(pair, corpus, server, workdir, &conninfo)?;
        // Its process counts when it has ended.
        let mut after = before;
        wait_for("the end of PostgreSQL's sender", SHORT, || {
            after = cpu_of_children(postmaster)?;
            Ok(after > before)
        })?;
        return Ok(Run {
            receiver,
            sender_cpu_s: after - before,
        });
    }
    let mut command = command_in(workdir, &workdir.program_path("walsender")?);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--archive"])
        .arg(server.data_dir().join("pg_wal"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut sender = Measuring::start(&mut command)?;
    let stdout = sender.child()?.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let (_, conninfo) = line
        .trim()
        .split_once("connect with: ")
        .with_context(|| format!("the sender says \"{line}\""))?;
    let receiver = receive(pair, corpus, server, workdir, conninfo)?;
    let pid = rustix::process::Pid::from_child(sender.child()?);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let (status, measured) = sender.finish()?;
    ensure!(status.success(), "the sender ended with {status}");
    Ok(Run {
        receiver,
        sender_cpu_s: measured.cpu_s(),
    })
}

/// Takes half as much memory again as the archive will have in the page cache, and gives it back. Memory that a virtual machine has had
/// no use for lately belongs to its host, and to get it back takes longer than all that is compared here.
fn touch_memory(bytes: u64) {
    let length = usize::try_from(bytes + bytes / 2).unwrap_or_default();
    drop(std::hint::black_box(vec![1_u8; length]));
}

fn receive(
    pair: Pair,
    corpus: &Corpus,
    server: &Cluster,
    workdir: &Workdir,
    conninfo: &str,
) -> Result<Measured> {
    let archive = workdir.make_dir("archive")?;
    let [first, second, .., last] = corpus.segments() else {
        anyhow::bail!("the corpus is too small");
    };
    // What is there already says where to go on: with the second segment.
    let name = |path: &Path| path.file_name().map(|name| archive.join(name));
    fs::copy(first, name(first).context("a file without a name")?)?;
    workdir.own(&archive)?;
    // The corpus begins with segment 1.
    let end = (u64::try_from(corpus.segments().len())? + 1) * SEGMENT;
    let mut command = if pair.our_receiver {
        let mut command = command_in(workdir, &workdir.program_path("walreceiver")?);
        command.arg("receive");
        command
    } else {
        command_in(workdir, &server.programs().program("pg_receivewal"))
    };
    command
        .arg("-D")
        .arg(&archive)
        .args(["--no-loop", "--no-sync", "-d", conninfo]);
    command.arg(format!("--endpos={:X}/{:X}", end >> 32, end & 0xFFFF_FFFF));
    let measured = run(&mut command)?;
    for segment in [second, last] {
        let received = name(segment).context("a file without a name")?;
        ensure!(
            fs::read(&received)? == fs::read(segment)?,
            "\"{}\" is not what the server has",
            received.display()
        );
    }
    fs::remove_dir_all(&archive)?;
    Ok(measured)
}

/// CPU time of a process's children that have ended, in seconds.
///
/// # Source
/// `proc_pid_stat(5)`: fields 16 and 17.
fn cpu_of_children(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("no process")?;
    let mut times = fields.split_whitespace().skip(13).map(str::parse::<u32>);
    let mut next = || -> Result<u32> { Ok(times.next().context("too few fields")??) };
    let ticks = next()? + next()?;
    Ok(f64::from(ticks) / f64::from(u32::try_from(rustix::param::clock_ticks_per_second())?))
}
