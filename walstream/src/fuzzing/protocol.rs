//! Fuzz targets of the replication protocol.

use bytes::BytesMut;

use crate::protocol::base_backup::{BackupGeneration, BackupMessage, BackupStream};
use crate::protocol::command::{Command, Grammar};
use crate::protocol::copy::{PrimaryMessage, StandbyMessage};
use crate::protocol::identify::BackupTablespace;
use crate::protocol::message::{
    BackendMessage, FrameHeader, FrontendMessage, StartupRequest, max_backend_length,
    max_frontend_length,
};
use crate::protocol::receiver::{Receiver, ReceiverConfig};
use crate::{Lsn, PgTimestamp, TimelineId};

/// Payloads of a replication stream, of both directions, alone and through the receiver.
pub fn copy_message(data: &[u8]) {
    let mut out = BytesMut::new();
    if let Ok(message) = PrimaryMessage::parse(data) {
        message.encode(&mut out);
        assert_eq!(PrimaryMessage::parse(&out), Ok(message));
        let start_lsn = match message {
            PrimaryMessage::XLogData(wal) => wal.start_lsn,
            PrimaryMessage::Keepalive(_) => Lsn(1),
        };
        let now = std::time::Instant::now();
        let mut receiver = Receiver::new(ReceiverConfig::default(), start_lsn, TimelineId(1), now);
        receiver
            .handle_message(now, data)
            .expect("data at the expected LSN");
        receiver
            .handle_written(receiver.received_lsn())
            .expect("received");
        receiver
            .handle_flushed(receiver.written_lsn())
            .expect("written");
        let status = receiver
            .poll_transmit(now, PgTimestamp(0))
            .expect("the first status");
        assert_eq!(status.flush_lsn, receiver.received_lsn());
        assert_eq!(receiver.poll_transmit(now, PgTimestamp(0)), None);
    }
    out.clear();
    if let Ok(message) = StandbyMessage::parse(data) {
        message.encode(&mut out);
        assert_eq!(StandbyMessage::parse(&out), Ok(message));
    }
}

/// Commands in the grammar of every version; what a grammar has words for is read back.
pub fn replication_command(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for version in 12..=18 {
        let grammar = Grammar::for_version(version * 10_000);
        if let Ok(command) = Command::parse(text, grammar) {
            let formatted = command.format(grammar);
            assert_eq!(
                Command::parse(&formatted, grammar),
                Ok(command),
                "{formatted}"
            );
        }
    }
}

/// Bytes of a connection as a server, a client and a beginning client send them.
pub fn message_frames(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(header)) = FrameHeader::parse(rest, max_backend_length) {
        let Some((frame, after)) = rest.split_at_checked(header.total_len()) else {
            break;
        };
        if let Some(Ok(message)) =
            content(frame).map(|content| BackendMessage::parse(header.tag, content))
        {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            assert_eq!(
                BackendMessage::parse(header.tag, content(&out).unwrap_or_default()),
                Ok(message)
            );
        }
        rest = after;
    }
    let mut rest = data;
    while let Ok(Some(header)) = FrameHeader::parse(rest, max_frontend_length) {
        let Some((frame, after)) = rest.split_at_checked(header.total_len()) else {
            break;
        };
        if let Some(Ok(message)) =
            content(frame).map(|content| FrontendMessage::parse(header.tag, content))
        {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            assert_eq!(out, frame);
        }
        rest = after;
    }
    if let Ok(Some((request, length))) = StartupRequest::parse(data) {
        let mut out = BytesMut::new();
        request.encode(&mut out);
        assert_eq!(StartupRequest::parse(&out), Ok(Some((request, out.len()))));
        assert!(length <= data.len());
    }
}

fn content(frame: &[u8]) -> Option<&[u8]> {
    frame.get(FrameHeader::LEN..)
}

/// A base backup: the first byte says what is expected, then each piece is a length byte and a payload, or with
/// length 255 a CopyDone, 254 a CopyOutResponse.
pub fn base_backup(data: &[u8]) {
    let Some((&kind, mut rest)) = data.split_first() else {
        return;
    };
    let generation = BackupGeneration::for_version(if kind & 1 == 0 { 140_000 } else { 150_000 });
    let row = |oid: Option<u32>| BackupTablespace {
        oid,
        location: oid.map(|_| b"/t".to_vec()),
        size_kib: None,
    };
    let rows = [row(Some(1)), row(None)];
    let mut stream = BackupStream::new(generation, &rows, kind & 2 != 0);
    while let Some((&length, after)) = rest.split_first() {
        let was_finished = stream.is_finished();
        let result = match length {
            255 => stream.handle_copy_done().map(|_| ()),
            254 => stream.handle_copy_out().map(|_| ()),
            _ => {
                let (payload, _) = after.split_at(after.len().min(length.into()));
                if let Ok(message) = BackupMessage::parse(payload) {
                    let mut out = BytesMut::new();
                    message.encode(&mut out);
                    assert_eq!(out, payload);
                }
                stream.handle_copy_data(payload).map(|_| ())
            }
        };
        assert!(
            !was_finished || result.is_err(),
            "input after the end was accepted"
        );
        let skip = if length < 254 { usize::from(length) } else { 0 };
        rest = after.get(skip..).unwrap_or_default();
    }
}
