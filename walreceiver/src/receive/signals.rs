//! [`Signals`]: what SIGINT, SIGTERM and the end position say about when to end.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use walstream::Lsn;

use crate::run::stream::Stop;

/// When to end, as it is known so far.
#[derive(Debug)]
pub struct Signals {
    stop: watch::Sender<Stop>,
    count: watch::Receiver<u32>,
}

impl Signals {
    /// Takes SIGINT and SIGTERM, each of which makes it [`Stop::Now`]; before that it is the end position, if there is
    /// one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(end: Option<Lsn>) -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // WAL behind the end position has to come: the position itself may be the end of what the server has.
        let stop = watch::Sender::new(end.map_or(Stop::Never, |end| Stop::At(end + 1)));
        let (counter, count) = watch::channel(0);
        let stopping = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = counter.closed() => return,
                }
                stopping.send_replace(Stop::Now);
                counter.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { stop, count })
    }

    /// Follows when to end.
    #[must_use]
    pub fn stop(&self) -> watch::Receiver<Stop> {
        self.stop.subscribe()
    }

    /// A signal came.
    #[must_use]
    pub fn came(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Waits until this many signals came.
    pub async fn wait_for(&self, many: u32) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count >= many).await.is_err() {
            // Nobody listens to signals any more.
            std::future::pending::<()>().await;
        }
    }

    /// Ends as a signal does once `ended` is ready.
    pub fn stop_when(&self, ended: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            ended.await;
            stop.send_replace(Stop::Now);
        });
    }
}
