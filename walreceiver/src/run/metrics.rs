//! Prometheus metrics of `walreceiver run`, and the exporter that `--metrics ADDR` starts.
//!
//! Positions are LSNs as byte numbers, so that the difference of two is a lag in bytes. They are exact up to 8 PiB of
//! WAL, since Prometheus keeps every value as a float of 53 bits.
//!
//! ```text
//! walstream_receiver_received_lsn                     end of the WAL that was received and checked, bytes
//! walstream_receiver_write_lsn                        end of the WAL that was handed to the operating system, bytes
//! walstream_receiver_flush_lsn                        end of the WAL that survives a loss of power, bytes
//! walstream_receiver_server_wal_end_lsn               end of the server's WAL, as its last message said, bytes
//! walstream_receiver_bytes_received_total             WAL received, bytes
//! walstream_receiver_records_total                    WAL records received and checked
//! walstream_receiver_reconnects_total                 connections made after the first
//! walstream_receiver_fsync_seconds                    how long each sync took, histogram
//! walstream_receiver_last_message_timestamp_seconds   when the server last sent anything, Unix time
//! walstream_receiver_streaming                        1 while WAL is streamed, 0 otherwise
//! walstream_receiver_timeline                         the timeline that is received
//! ```
//!
//! Replay adds its own: `replay_metrics`. A hub adds those of its followers, `walstream_sender_*`: [`walsender::status::metrics`].

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{
    Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use thiserror::Error;
use tokio::sync::watch;
use walsender::status::http::{MetricsListenError, MetricsListener};
use walstream::PgTimestamp;
use walstream::lsn::Lsn;

use super::live::LiveStatus;
use crate::exit::{Exit, Recovery};
use crate::hub::HubView;
use crate::wal_sink::{FSYNC_SECONDS, SinkProgress};

/// Upper bounds of the histogram of syncs, in seconds: from a disk with a safe cache to one that is in trouble.
const FSYNC_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// How often samples are moved into their histograms.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why metrics are not served.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] MetricsListenError),
    /// The recorder cannot be made.
    #[error("cannot record metrics: {0}")]
    Recorder(#[from] BuildError),
    /// This process has a recorder of metrics already.
    #[error("cannot serve metrics: this process already records its metrics elsewhere")]
    AlreadyInstalled,
}

impl MetricsError {
    /// The exit code of a program that ends because of this error.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Listen(_) => Exit::Usage,
            Self::Recorder(_) | Self::AlreadyInstalled => Exit::Failure,
        }
    }

    /// Whether the same step may succeed when it is tried again: it may not.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        Recovery::Permanent
    }
}

/// Serves the metrics of this process over HTTP at `address`, whatever the path, and records them from now on. Those of
/// replay follow, as `live` says it, and of the hub, once there is one.
///
/// Call it once, before [`ReceiverMetrics::new`]: what is recorded earlier is lost.
///
/// # Errors
/// [`MetricsError::Listen`] when the address is taken or not this machine's, [`MetricsError::AlreadyInstalled`] when the
/// process has a recorder.
pub async fn install_exporter(
    address: SocketAddr,
    live: watch::Receiver<LiveStatus>,
    hub: Arc<OnceLock<HubView>>,
) -> Result<(), MetricsError> {
    let listener = MetricsListener::bind(address).await?;
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::AlreadyInstalled)?;
    tracing::info!(address = %listener.address().unwrap_or(address), "serving metrics");
    tokio::spawn(exporter(listener, handle, live, hub));
    Ok(())
}

fn recorder() -> Result<PrometheusRecorder, MetricsError> {
    let buckets = Matcher::Full(FSYNC_SECONDS.to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &FSYNC_BUCKETS)?;
    Ok(builder.build_recorder())
}

async fn exporter(
    listener: MetricsListener,
    handle: PrometheusHandle,
    live: watch::Receiver<LiveStatus>,
    hub: Arc<OnceLock<HubView>>,
) {
    let rendered = handle.clone();
    let text = move || {
        let mut text = rendered.render();
        let now = PgTimestamp::from(SystemTime::now()).unix_us();
        text.push_str(&super::replay_metrics::render(&live.borrow(), now));
        if let Some(hub) = hub.get() {
            text.push_str(&hub.metrics());
        }
        text
    };
    let upkeep = async {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            handle.run_upkeep();
        }
    };
    tokio::select! {
        () = listener.serve(text) => {}
        () = upkeep => {}
    }
}

/// The receiver's metrics. Each update is one atomic store, and none at all when no recorder is installed.
#[derive(Clone)]
pub struct ReceiverMetrics {
    received_lsn: Gauge,
    write_lsn: Gauge,
    flush_lsn: Gauge,
    server_wal_end_lsn: Gauge,
    bytes_received: Counter,
    records: Counter,
    reconnects: Counter,
    last_message: Gauge,
    streaming: Gauge,
    timeline: Gauge,
}

impl std::fmt::Debug for ReceiverMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiverMetrics").finish_non_exhaustive()
    }
}

impl Default for ReceiverMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ReceiverMetrics {
    /// Registers every metric, with its help text, at the recorder that is installed now.
    #[must_use]
    pub fn new() -> Self {
        describe_histogram!(
            FSYNC_SECONDS,
            Unit::Seconds,
            "How long each sync of received WAL took."
        );
        Self {
            received_lsn: described_gauge(
                "walstream_receiver_received_lsn",
                Unit::Bytes,
                "End of the WAL that was received and checked, as a byte position.",
            ),
            write_lsn: described_gauge(
                "walstream_receiver_write_lsn",
                Unit::Bytes,
                "End of the WAL that was handed to the operating system, as a byte position.",
            ),
            flush_lsn: described_gauge(
                "walstream_receiver_flush_lsn",
                Unit::Bytes,
                "End of the WAL that survives a loss of power, as a byte position.",
            ),
            server_wal_end_lsn: described_gauge(
                "walstream_receiver_server_wal_end_lsn",
                Unit::Bytes,
                "End of the server's WAL according to its last message, as a byte position.",
            ),
            bytes_received: described_counter(
                "walstream_receiver_bytes_received_total",
                Unit::Bytes,
                "WAL received.",
            ),
            records: described_counter(
                "walstream_receiver_records_total",
                Unit::Count,
                "WAL records received and checked.",
            ),
            reconnects: described_counter(
                "walstream_receiver_reconnects_total",
                Unit::Count,
                "Connections to a server made after the first.",
            ),
            last_message: described_gauge(
                "walstream_receiver_last_message_timestamp_seconds",
                Unit::Seconds,
                "When the server last sent anything, in Unix time.",
            ),
            streaming: described_gauge(
                "walstream_receiver_streaming",
                Unit::Count,
                "1 while WAL is being streamed, 0 otherwise.",
            ),
            timeline: described_gauge(
                "walstream_receiver_timeline",
                Unit::Count,
                "The timeline that is being received.",
            ),
        }
    }

    /// WAL up to `end` was received and checked: this many more bytes, in which this many records ended.
    pub fn received(&self, end: Lsn, bytes: u64, records: u64) {
        self.received_lsn.set(position(end));
        self.bytes_received.increment(bytes);
        self.records.increment(records);
    }

    /// The sink has got this far.
    pub fn progress(&self, progress: SinkProgress) {
        self.write_lsn.set(position(progress.write_lsn));
        self.flush_lsn.set(position(progress.flush_lsn));
        self.timeline.set(f64::from(progress.timeline.0));
    }

    /// The server sent a message at this time; its WAL ends at `server_wal_end`.
    pub fn message(&self, at: SystemTime, server_wal_end: Lsn) {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_message.set(since_epoch.as_secs_f64());
        self.server_wal_end_lsn.set(position(server_wal_end));
    }

    /// A connection was made after an earlier one was lost.
    pub fn reconnected(&self) {
        self.reconnects.increment(1);
    }

    /// WAL is being streamed from now on, or no longer is.
    pub fn streaming(&self, streaming: bool) {
        self.streaming.set(f64::from(u8::from(streaming)));
    }
}

fn described_gauge(name: &'static str, unit: Unit, help: &'static str) -> Gauge {
    describe_gauge!(name, unit, help);
    gauge!(name)
}

fn described_counter(name: &'static str, unit: Unit, help: &'static str) -> Counter {
    describe_counter!(name, unit, help);
    counter!(name)
}

/// A position as Prometheus keeps it.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 8 PiB, as the module says"
)]
const fn position(lsn: Lsn) -> f64 {
    lsn.0 as f64
}

#[cfg(test)]
mod tests {
    use metrics::with_local_recorder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use walstream::types::TimelineId;

    use super::*;

    async fn scrape(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn every_metric_is_scraped_with_its_help_and_value() {
        let listener = MetricsListener::bind(([127, 0, 0, 1], 0).into()).await;
        let listener = listener.unwrap();
        let address = listener.address().unwrap();
        let recorder = recorder().unwrap();
        tokio::spawn(exporter(
            listener,
            recorder.handle(),
            watch::channel(LiveStatus::default()).1,
            Arc::default(),
        ));
        with_local_recorder(&recorder, || {
            let metrics = ReceiverMetrics::new();
            metrics.received(Lsn(0x1_0000_0300), 4096, 7);
            metrics.progress(SinkProgress {
                timeline: TimelineId(3),
                write_lsn: Lsn(0x1_0000_0200),
                flush_lsn: Lsn(0x1_0000_0100),
            });
            metrics.message(
                UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
                Lsn(0x1_0000_0400),
            );
            metrics.reconnected();
            metrics.reconnected();
            metrics.streaming(true);
            metrics::histogram!(FSYNC_SECONDS).record(Duration::from_micros(700));
        });
        let answer = scrape(address).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let has_line = |line: &str| answer.lines().any(|found| found == line);
        for (name, kind, value) in [
            ("received_lsn", "gauge", "4294968064"),
            ("write_lsn", "gauge", "4294967808"),
            ("flush_lsn", "gauge", "4294967552"),
            ("server_wal_end_lsn", "gauge", "4294968320"),
            ("bytes_received_total", "counter", "4096"),
            ("records_total", "counter", "7"),
            ("reconnects_total", "counter", "2"),
            ("last_message_timestamp_seconds", "gauge", "1700000000.5"),
            ("streaming", "gauge", "1"),
            ("timeline", "gauge", "3"),
        ] {
            let name = format!("walstream_receiver_{name}");
            assert!(
                has_line(&format!("{name} {value}")),
                "{name} {value} in {answer}"
            );
            assert!(
                has_line(&format!("# TYPE {name} {kind}")),
                "{name} {kind} in {answer}"
            );
            assert!(
                answer.contains(&format!("# HELP {name} ")),
                "{name} in {answer}"
            );
        }
        for line in [
            "# TYPE walstream_receiver_fsync_seconds histogram",
            "walstream_receiver_fsync_seconds_bucket{le=\"0.0005\"} 0",
            "walstream_receiver_fsync_seconds_bucket{le=\"0.001\"} 1",
            "walstream_receiver_fsync_seconds_count 1",
        ] {
            assert!(has_line(line), "{line} in {answer}");
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let error = install_exporter(
            address,
            watch::channel(LiveStatus::default()).1,
            Arc::default(),
        )
        .await
        .unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(error.exit(), Exit::Usage);
    }
}
