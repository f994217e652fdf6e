//! [`Answer`], messages to the client that wait to be sent.

use bytes::BytesMut;
use walstream::protocol::identify::{ResultColumn, TextValue};
use walstream::protocol::message::{
    Authentication, BackendMessage, CopyFormat, DataRow, ErrorFields, FrameHeader, ProtocolVersion,
    RowDescription, TransactionStatus,
};

use crate::cancel::CancelKey;
use crate::refusal::Refusal;

/// Messages to the client, encoded one after the other.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) bytes: BytesMut,
    is_cut: bool,
}

impl Answer {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Nothing after the first `length` bytes of what waits is to be sent.
    pub(crate) fn cut_to(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.is_cut = true;
    }

    /// Whether everything was sent that may be, and something was cut off.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut && self.bytes.is_empty()
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

    /// A CopyData message whose payload `encode` appends, which has `length` bytes.
    pub(crate) fn copy_data_of(&mut self, length: usize, encode: impl FnOnce(&mut BytesMut)) {
        let header = FrameHeader {
            tag: b'd',
            content_len: length,
        };
        self.bytes.reserve(header.total_len());
        header.encode(&mut self.bytes);
        encode(&mut self.bytes);
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
