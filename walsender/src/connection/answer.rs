//! [`Answer`], messages to the client that wait to be sent.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use walstream::protocol::identify::{ResultColumn, TextValue};
use walstream::protocol::message::{
    Authentication, BackendMessage, CopyFormat, DataRow, ErrorFields, FrameHeader, ProtocolVersion,
    RowDescription, TransactionStatus,
};

use crate::cancel::CancelKey;
use crate::refusal::Refusal;
use crate::source::FilePiece;

/// A body up to this size is copied behind its message's header: one system call less is worth more.
const COPIED: usize = 16 << 10;

/// Messages to the client, one after the other: encoded, but for bodies that are sent from where they are.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// What comes first.
    parts: VecDeque<Part>,
    /// What comes behind it.
    bytes: BytesMut,
    is_cut: bool,
}

/// What waits to be sent.
#[derive(Debug)]
pub(crate) enum Part {
    Bytes(BytesMut),
    Memory(Bytes),
    File(FilePiece),
}

impl Part {
    /// Number of bytes.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(piece) => piece.length(),
        }
    }

    /// The first `count` bytes have been sent.
    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count.min(bytes.len())),
            Self::Memory(bytes) => bytes.advance(count.min(bytes.len())),
            Self::File(piece) => piece.advance(count as u64),
        }
    }

    fn truncate(&mut self, length: u64) {
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        match self {
            Self::Bytes(part) => part.truncate(bytes),
            Self::Memory(part) => part.truncate(bytes),
            Self::File(piece) => piece.truncate(length),
        }
    }
}

impl Answer {
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.bytes.is_empty()
    }

    /// Number of bytes that wait.
    pub(crate) fn length(&self) -> u64 {
        let parts = self.parts.iter().map(Part::length);
        parts.fold(self.bytes.len() as u64, u64::saturating_add)
    }

    /// What is to be sent next, and whether more follows it.
    pub(crate) fn first(&mut self) -> Option<(&mut Part, bool)> {
        if self.parts.is_empty() && !self.bytes.is_empty() {
            self.end_bytes();
        }
        let follows = self.parts.len() > 1 || !self.bytes.is_empty();
        self.parts.front_mut().map(|part| (part, follows))
    }

    /// So many bytes of what comes first were sent.
    pub(crate) fn advance(&mut self, count: usize) {
        if let Some(part) = self.parts.front_mut() {
            part.advance(count);
            if part.length() == 0
                && let Some(Part::Bytes(mut bytes)) = self.parts.pop_front()
                && self.bytes.capacity() == 0
            {
                // Its memory is used again.
                bytes.clear();
                self.bytes = bytes;
            }
        }
    }

    fn end_bytes(&mut self) {
        if !self.bytes.is_empty() {
            self.parts
                .push_back(Part::Bytes(std::mem::take(&mut self.bytes)));
        }
    }

    /// Nothing after the first `length` bytes of what waits is to be sent.
    pub(crate) fn cut_to(&mut self, length: u64) {
        self.end_bytes();
        let mut left = length;
        for part in &mut self.parts {
            part.truncate(left);
            left = left.saturating_sub(part.length());
        }
        self.parts.retain(|part| part.length() > 0);
        self.is_cut = true;
    }

    /// Whether everything was sent that may be, and something was cut off.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut && self.is_empty()
    }

    /// Messages that are encoded already.
    pub(crate) fn encoded(&mut self, messages: &[u8]) {
        self.bytes.extend_from_slice(messages);
    }

    pub(crate) fn authentication_ok(&mut self) {
        self.put(&BackendMessage::Authentication(Authentication::Ok));
    }

    /// The client asked for a newer minor version, or for protocol options that are not known.
    pub(crate) fn negotiate_protocol_version(&mut self, unknown_options: &[String]) {
        self.put(&BackendMessage::NegotiateProtocolVersion {
            newest: ProtocolVersion::V3_0.0,
            unknown: unknown_options.iter().map(String::as_str).collect(),
        });
    }

    pub(crate) fn parameter_status(&mut self, name: &str, value: &str) {
        self.put(&BackendMessage::ParameterStatus { name, value });
    }

    pub(crate) fn backend_key_data(&mut self, key: &CancelKey) {
        self.put(&BackendMessage::BackendKeyData {
            process_id: key.pid,
            secret: &key.secret,
        });
    }

    /// Outside a transaction, always.
    pub(crate) fn ready_for_query(&mut self) {
        self.put(&BackendMessage::ReadyForQuery(TransactionStatus::Idle));
    }

    /// A result of one row.
    pub(crate) fn single_row(&mut self, columns: &[ResultColumn<'_>], values: &[TextValue]) {
        RowDescription::encode(columns, &mut self.bytes);
        DataRow::encode(values, &mut self.bytes);
    }

    pub(crate) fn command_complete(&mut self, tag: &str) {
        self.put(&BackendMessage::CommandComplete { tag });
    }

    pub(crate) fn copy_out_response(&mut self) {
        self.put(&BackendMessage::CopyOutResponse(CopyFormat::default()));
    }

    pub(crate) fn copy_both_response(&mut self) {
        self.put(&BackendMessage::CopyBothResponse(CopyFormat::default()));
    }

    pub(crate) fn copy_done(&mut self) {
        self.put(&BackendMessage::CopyDone);
    }

    pub(crate) fn copy_data(&mut self, payload: &[u8]) {
        self.put(&BackendMessage::CopyData(payload));
    }

    /// A CopyData message whose payload is what `encode` appends, which has `head` bytes, and the body.
    pub(crate) fn copy_data_with_body(
        &mut self,
        head: usize,
        encode: impl FnOnce(&mut BytesMut),
        body: Part,
    ) {
        let length = usize::try_from(body.length()).unwrap_or(usize::MAX);
        let header = FrameHeader {
            tag: b'd',
            content_len: head.saturating_add(length),
        };
        self.bytes.reserve(FrameHeader::LEN + head);
        header.encode(&mut self.bytes);
        encode(&mut self.bytes);
        match body {
            Part::Memory(body) if body.len() <= COPIED => self.bytes.extend_from_slice(&body),
            body => {
                self.end_bytes();
                self.parts.push_back(body);
            }
        }
    }

    /// Something that the client should know, and that changes nothing.
    pub(crate) fn warning(&mut self, text: &str) {
        self.notice(ErrorFields::new("WARNING", "01000", text));
    }

    pub(crate) fn notice(&mut self, fields: ErrorFields) {
        self.put(&BackendMessage::NoticeResponse(fields));
    }

    /// The columns of a result whose rows follow.
    pub(crate) fn row_description(&mut self, columns: &[ResultColumn<'_>]) {
        RowDescription::encode(columns, &mut self.bytes);
    }

    /// A row of a result.
    pub(crate) fn data_row(&mut self, values: &[TextValue]) {
        DataRow::encode(values, &mut self.bytes);
    }

    pub(crate) fn error(&mut self, refusal: &Refusal) {
        self.put(&BackendMessage::ErrorResponse(refusal.fields()));
    }

    fn put(&mut self, message: &BackendMessage<'_>) {
        message.encode(&mut self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(answer: &mut Answer) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((part, _)) = answer.first() {
            let count = match part {
                Part::Bytes(bytes) => {
                    all.extend_from_slice(&bytes[..1]);
                    1
                }
                Part::Memory(bytes) => {
                    all.extend_from_slice(bytes);
                    bytes.len()
                }
                Part::File(_) => unreachable!(),
            };
            answer.advance(count);
        }
        all
    }

    fn answer(body: usize) -> Answer {
        let mut answer = Answer::default();
        answer.copy_done();
        let body = Part::Memory(Bytes::from(vec![7; body]));
        answer.copy_data_with_body(2, |out| out.extend_from_slice(b"hd"), body);
        answer.copy_done();
        answer
    }

    #[test]
    fn bodies_are_sent_in_their_place() {
        for body in [0, 1, COPIED, COPIED + 1] {
            let mut answer = answer(body);
            let length = u32::try_from(body + 6).unwrap();
            let mut expected = b"c\0\0\0\x04d".to_vec();
            expected.extend(length.to_be_bytes());
            expected.extend(b"hd");
            expected.extend(vec![7; body]);
            expected.extend(b"c\0\0\0\x04");
            assert_eq!(answer.length(), expected.len() as u64);
            assert_eq!(sent(&mut answer), expected);
            assert!(answer.is_empty() && !answer.is_cut_off());
        }
    }

    #[test]
    fn an_answer_is_cut_at_any_byte() {
        let body = COPIED + 10;
        let whole = sent(&mut answer(body));
        for length in [0, 1, 5, 12, 13, 100, whole.len() - 5, whole.len() - 1] {
            let mut answer = answer(body);
            answer.cut_to(length as u64);
            assert_eq!(answer.is_cut_off(), length == 0);
            assert_eq!(sent(&mut answer), whole[..length], "{length}");
            assert!(answer.is_cut_off());
        }
    }
}
