//! Options behind the method: `NAME=VALUE`.

use super::hba_error::HbaProblem;
use super::rule::{ClientCert, Method, Transport};

/// What the options of a line say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) client_cert: ClientCert,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_cert: ClientCert::Off,
        }
    }
}

impl Options {
    /// Takes one option.
    ///
    /// # Source
    /// `parse_hba_auth_opt` in `src/backend/libpq/hba.c`.
    pub(super) fn set(
        &mut self,
        option: &str,
        transport: Transport,
        method: Method,
    ) -> Result<(), HbaProblem> {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| HbaProblem::OptionForm(option.to_owned()))?;
        let is_ssl = transport == Transport::HostSsl;
        match (name, value) {
            ("map", _) => Err(HbaProblem::Map),
            ("clientcert", _) if !is_ssl => Err(HbaProblem::OptionNotSsl("clientcert")),
            ("clientcert", "verify-full") => {
                self.client_cert = ClientCert::VerifyFull;
                Ok(())
            }
            ("clientcert", "verify-ca") if method == Method::Cert => Err(HbaProblem::CertVerifyCa),
            ("clientcert", "verify-ca") => {
                self.client_cert = ClientCert::VerifyCa;
                Ok(())
            }
            ("clientname", _) if !is_ssl => Err(HbaProblem::OptionNotSsl("clientname")),
            ("clientname", "CN") => Ok(()),
            ("clientname", "DN") => Err(HbaProblem::DistinguishedName),
            ("clientcert", _) => Err(HbaProblem::OptionValue {
                name: "clientcert",
                value: value.to_owned(),
            }),
            ("clientname", _) => Err(HbaProblem::OptionValue {
                name: "clientname",
                value: value.to_owned(),
            }),
            _ => Err(HbaProblem::OptionName(name.to_owned())),
        }
    }
}
