//! The replication grammar, by recursive descent.

use super::base_backup::legacy_option;
use super::option::{GenericOption, OptionValue};
use super::scanner::{Scanner, Token, cut_identifier};
use super::{
    AlterReplicationSlot, BaseBackup, Command, CommandError, CreateReplicationSlot, Grammar,
    SlotKind,
};
use crate::{Lsn, TimelineId};

pub(super) struct Parser<'a> {
    scanner: Scanner<'a>,
    grammar: Grammar,
    /// The token that was read ahead.
    peeked: Option<(usize, Token<'a>)>,
}

impl<'a> Parser<'a> {
    pub(super) const fn new(text: &'a str, grammar: Grammar) -> Self {
        Self {
            scanner: Scanner::new(text),
            grammar,
            peeked: None,
        }
    }

    /// One whole command, with a semicolon or without.
    pub(super) fn command(mut self) -> Result<Command, CommandError> {
        let first = match self.next() {
            Ok((_, Token::Word(word))) if self.grammar.is_keyword(word) => word,
            _ => return Err(CommandError::NotReplication),
        };
        let command = match first {
            "IDENTIFY_SYSTEM" => Command::IdentifySystem,
            "SHOW" => Command::Show {
                name: self.dotted()?,
            },
            "TIMELINE_HISTORY" => Command::TimelineHistory {
                timeline: self.timeline()?,
            },
            "CREATE_REPLICATION_SLOT" => Command::CreateReplicationSlot(self.create_slot()?),
            "ALTER_REPLICATION_SLOT" => {
                let slot = self.identifier()?;
                let options = self.option_list()?;
                Command::AlterReplicationSlot(AlterReplicationSlot::from_options(slot, &options)?)
            }
            "READ_REPLICATION_SLOT" => Command::ReadReplicationSlot {
                slot: self.dotted()?,
            },
            "DROP_REPLICATION_SLOT" => Command::DropReplicationSlot {
                slot: self.identifier()?,
                wait: self.accept_keyword("WAIT")?,
            },
            "START_REPLICATION" => self.start_replication()?,
            "BASE_BACKUP" => {
                let options = self.backup_options()?;
                self.end()?;
                return Ok(Command::BaseBackup(BaseBackup::from_options(
                    &options,
                    self.grammar,
                )?));
            }
            "UPLOAD_MANIFEST" => Command::UploadManifest,
            _ => return Err(CommandError::NotReplication),
        };
        self.end()?;
        Ok(command)
    }

    fn create_slot(&mut self) -> Result<CreateReplicationSlot, CommandError> {
        let slot = self.identifier()?;
        let temporary = self.accept_keyword("TEMPORARY")?;
        let kind = if self.accept_keyword("PHYSICAL")? {
            SlotKind::Physical { reserve_wal: false }
        } else {
            self.expect_keyword("LOGICAL")?;
            SlotKind::Logical {
                plugin: self.identifier()?,
                snapshot: None,
                two_phase: false,
                failover: false,
            }
        };
        let grammar = self.grammar;
        let options = match self.peek()? {
            Token::Sign(b'(') if grammar.has_option_lists() => self.option_list()?,
            _ => self.legacy_slot_options()?,
        };
        let mut create = CreateReplicationSlot {
            slot,
            temporary,
            kind,
        };
        create.apply(&options, self.grammar)?;
        Ok(create)
    }

    fn legacy_slot_options(&mut self) -> Result<Vec<GenericOption>, CommandError> {
        let mut options = Vec::new();
        let has_two_phase = self.grammar.is_keyword("TWO_PHASE");
        loop {
            let (name, value) = match *self.peek()? {
                Token::Word("RESERVE_WAL") => ("reserve_wal", OptionValue::None),
                Token::Word("TWO_PHASE") if has_two_phase => ("two_phase", OptionValue::None),
                Token::Word("EXPORT_SNAPSHOT") => {
                    ("snapshot", OptionValue::Text("export".to_owned()))
                }
                Token::Word("NOEXPORT_SNAPSHOT") => {
                    ("snapshot", OptionValue::Text("nothing".to_owned()))
                }
                Token::Word("USE_SNAPSHOT") => ("snapshot", OptionValue::Text("use".to_owned())),
                _ => return Ok(options),
            };
            self.next()?;
            options.push(GenericOption {
                name: name.to_owned(),
                value,
            });
        }
    }

    fn start_replication(&mut self) -> Result<Command, CommandError> {
        let slot = match self.accept_keyword("SLOT")? {
            true => Some(self.identifier()?),
            false => None,
        };
        let slot = match slot {
            Some(slot) if self.accept_keyword("LOGICAL")? => {
                return Ok(Command::StartLogicalReplication {
                    slot,
                    start_lsn: self.lsn()?,
                    options: self.plugin_options()?,
                });
            }
            slot => slot,
        };
        self.accept_keyword("PHYSICAL")?;
        let start_lsn = self.lsn()?;
        let timeline = match self.accept_keyword("TIMELINE")? {
            true => Some(self.timeline()?),
            false => None,
        };
        Ok(Command::StartReplication {
            slot,
            start_lsn,
            timeline,
        })
    }

    fn plugin_options(&mut self) -> Result<Vec<(String, Option<String>)>, CommandError> {
        let mut options = Vec::new();
        if !self.accept_sign(b'(')? {
            return Ok(options);
        }
        loop {
            let name = self.identifier()?;
            let value = match self.peek()? {
                Token::Literal(value) => Some(value.clone()),
                _ => None,
            };
            if value.is_some() {
                self.next()?;
            }
            options.push((name, value));
            if !self.accept_sign(b',')? {
                self.expect_sign(b')')?;
                return Ok(options);
            }
        }
    }

    fn backup_options(&mut self) -> Result<Vec<GenericOption>, CommandError> {
        if self.grammar.has_option_lists() {
            return match self.peek()? {
                Token::Sign(b'(') => self.option_list(),
                _ => Ok(Vec::new()),
            };
        }
        let mut options = Vec::new();
        while let Token::Word(keyword) = *self.peek()? {
            let (offset, _) = self.next()?;
            let (name, value) = match (keyword, legacy_option(keyword)) {
                (_, Some(option)) => option,
                ("MAX_RATE", _) => ("max_rate", OptionValue::Number(self.number()?)),
                ("LABEL", _) => ("label", OptionValue::Text(self.literal()?)),
                (_, _) if !self.grammar.is_keyword(keyword) => {
                    return Err(CommandError::Syntax { offset });
                }
                ("MANIFEST", _) => ("manifest", OptionValue::Text(self.literal()?)),
                ("MANIFEST_CHECKSUMS", _) => {
                    ("manifest_checksums", OptionValue::Text(self.literal()?))
                }
                (_, _) => return Err(CommandError::Syntax { offset }),
            };
            options.push(GenericOption {
                name: name.to_owned(),
                value,
            });
        }
        Ok(options)
    }

    /// `(name [value] [, ...])`; a name may be a keyword.
    fn option_list(&mut self) -> Result<Vec<GenericOption>, CommandError> {
        self.expect_sign(b'(')?;
        let mut options = Vec::new();
        loop {
            let name = match self.next()? {
                (_, Token::Word(word)) => cut_identifier(word.to_ascii_lowercase()),
                (_, Token::Identifier(name)) => name,
                (offset, _) => return Err(CommandError::Syntax { offset }),
            };
            let grammar = self.grammar;
            let value = match self.peek()? {
                Token::Word(word) if !grammar.is_keyword(word) => {
                    OptionValue::Text(cut_identifier(word.to_ascii_lowercase()))
                }
                Token::Identifier(text) | Token::Literal(text) => OptionValue::Text(text.clone()),
                Token::Number(number) => OptionValue::Number(*number),
                _ => OptionValue::None,
            };
            if value != OptionValue::None {
                self.next()?;
            }
            options.push(GenericOption { name, value });
            if !self.accept_sign(b',')? {
                self.expect_sign(b')')?;
                return Ok(options);
            }
        }
    }

    /// Identifiers with dots between them.
    fn dotted(&mut self) -> Result<String, CommandError> {
        let mut name = self.identifier()?;
        while self.accept_sign(b'.')? {
            name.push('.');
            name.push_str(&self.identifier()?);
        }
        Ok(name)
    }

    fn identifier(&mut self) -> Result<String, CommandError> {
        match self.next()? {
            (_, Token::Identifier(name)) => Ok(name),
            (_, Token::Word(word)) if !self.grammar.is_keyword(word) => {
                Ok(cut_identifier(word.to_ascii_lowercase()))
            }
            (offset, _) => Err(CommandError::Syntax { offset }),
        }
    }

    fn literal(&mut self) -> Result<String, CommandError> {
        match self.next()? {
            (_, Token::Literal(text)) => Ok(text),
            (offset, _) => Err(CommandError::Syntax { offset }),
        }
    }

    fn number(&mut self) -> Result<u32, CommandError> {
        match self.next()? {
            (_, Token::Number(number)) => Ok(number),
            (offset, _) => Err(CommandError::Syntax { offset }),
        }
    }

    fn timeline(&mut self) -> Result<TimelineId, CommandError> {
        match self.number()? {
            0 => Err(CommandError::InvalidTimeline(0)),
            number => Ok(TimelineId(number)),
        }
    }

    fn lsn(&mut self) -> Result<Lsn, CommandError> {
        match self.next()? {
            (_, Token::Lsn(lsn)) => Ok(lsn),
            (offset, _) => Err(CommandError::Syntax { offset }),
        }
    }

    fn end(&mut self) -> Result<(), CommandError> {
        self.accept_sign(b';')?;
        match self.next()? {
            (_, Token::End) => Ok(()),
            (offset, _) => Err(CommandError::Syntax { offset }),
        }
    }

    fn accept_keyword(&mut self, keyword: &str) -> Result<bool, CommandError> {
        let is_next = *self.peek()? == Token::Word(keyword);
        if is_next {
            self.next()?;
        }
        Ok(is_next)
    }

    fn expect_keyword(&mut self, keyword: &str) -> Result<(), CommandError> {
        match self.next()? {
            (_, Token::Word(word)) if word == keyword => Ok(()),
            (offset, _) => Err(CommandError::Syntax { offset }),
        }
    }

    fn accept_sign(&mut self, sign: u8) -> Result<bool, CommandError> {
        let is_next = *self.peek()? == Token::Sign(sign);
        if is_next {
            self.next()?;
        }
        Ok(is_next)
    }

    fn expect_sign(&mut self, sign: u8) -> Result<(), CommandError> {
        match self.next()? {
            (_, Token::Sign(found)) if found == sign => Ok(()),
            (offset, _) => Err(CommandError::Syntax { offset }),
        }
    }

    fn next(&mut self) -> Result<(usize, Token<'a>), CommandError> {
        match self.peeked.take() {
            Some(token) => Ok(token),
            None => self.scanner.next_token(),
        }
    }

    fn peek(&mut self) -> Result<&Token<'a>, CommandError> {
        Ok(&self.peeked()?.1)
    }

    fn peeked(&mut self) -> Result<&(usize, Token<'a>), CommandError> {
        if self.peeked.is_none() {
            self.peeked = Some(self.scanner.next_token()?);
        }
        self.peeked
            .as_ref()
            .ok_or(CommandError::Syntax { offset: 0 })
    }
}
