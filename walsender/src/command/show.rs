//! `SHOW`.

use walstream::protocol::identify::ResultColumn;

use crate::connection::Session;
use crate::connection::answer::Answer;
use crate::refusal::Refusal;

/// # Source
/// `ShowGUCConfigOption` in `src/backend/utils/misc/guc.c`.
pub(super) fn run(answer: &mut Answer, session: &Session, name: &str) -> Result<(), Refusal> {
    let settings = &session.shared.source.identity().settings;
    let Some((name, value)) = settings.get_key_value(&name.to_ascii_lowercase()) else {
        return Err(Refusal::error(
            "42704",
            format!("unrecognized configuration parameter \"{name}\""),
        ));
    };
    answer.single_row(
        &[ResultColumn::text(name)],
        &[Some(value.clone().into_bytes())],
    );
    answer.command_complete("SHOW");
    Ok(())
}
