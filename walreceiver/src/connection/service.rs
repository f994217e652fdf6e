//! Connection service files: `~/.pg_service.conf` and the system's `pg_service.conf`.

use std::path::{Path, PathBuf};

use super::conninfo_error::ConnInfoError;
use super::conninfo_text::is_space;
use super::environment::Environment;
use super::parameter::Parameters;

/// Completes the parameters from the section that `service` or `PGSERVICE` names. What was given before stays.
///
/// # Errors
/// No such file or section, or a line that is not understood.
///
/// # Source
/// `parseServiceInfo` in `src/interfaces/libpq/fe-connect.c`.
pub(super) fn apply(
    parameters: &mut Parameters,
    environment: &Environment,
) -> Result<(), ConnInfoError> {
    let given = if parameters.is_given("service") {
        Some(parameters.value("service").unwrap_or_default())
    } else {
        environment.variable("PGSERVICE")
    };
    let Some(service) = given.map(str::to_owned) else {
        return Ok(());
    };

    let personal = match environment.variable("PGSERVICEFILE") {
        Some(file) => Some(PathBuf::from(file)),
        None => environment
            .home()
            .map(|home| home.join(".pg_service.conf"))
            .filter(|file| file.exists()),
    };
    let system = environment.system_configuration().join("pg_service.conf");
    let system = Some(system).filter(|file| file.exists());
    for file in [personal, system].into_iter().flatten() {
        if apply_file(&file, &service, parameters)? {
            return Ok(());
        }
    }
    Err(ConnInfoError::ServiceNotFound { service })
}

/// `false` when the file has no such section.
fn apply_file(
    file: &Path,
    service: &str,
    parameters: &mut Parameters,
) -> Result<bool, ConnInfoError> {
    let bytes = std::fs::read(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConnInfoError::ServiceFileNotFound {
            file: file.to_owned(),
        },
        _ => ConnInfoError::ServiceFileUnreadable {
            file: file.to_owned(),
            cause: error.to_string(),
        },
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let header = format!("[{service}]");
    let mut found = false;
    for (index, line) in text.lines().enumerate() {
        let number = index.saturating_add(1);
        let line = line.trim_matches(is_space);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            if found {
                break;
            }
            found = line.starts_with(&header);
            continue;
        }
        if !found {
            continue;
        }
        let syntax = || ConnInfoError::ServiceFileSyntax {
            file: file.to_owned(),
            line: number,
        };
        let (keyword, value) = line.split_once('=').ok_or_else(syntax)?;
        if keyword == "service" {
            return Err(ConnInfoError::NestedService {
                file: file.to_owned(),
                line: number,
            });
        }
        if !parameters.set_default(keyword, value) {
            return Err(syntax());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(directory: &Path) -> Environment {
        Environment::default()
            .with_home(directory)
            .with_variable("PGSYSCONFDIR", directory.to_str().unwrap())
    }

    #[test]
    fn takes_the_named_section_only_and_keeps_what_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let text = "# comment\n[other]\nhost=wrong\n[mine]\n  host=right  \nport=1\nuser=service\n\n[mine]\nport=2\n";
        std::fs::write(directory.path().join(".pg_service.conf"), text).unwrap();
        let mut parameters = super::super::conninfo_text::parse("service=mine user=me").unwrap();
        apply(&mut parameters, &environment(directory.path())).unwrap();
        assert_eq!(
            parameters.redacted(),
            "service=mine user=me host=right port=1"
        );
    }

    #[test]
    fn falls_back_to_the_system_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join(".pg_service.conf"),
            "[other]\nhost=wrong\n",
        )
        .unwrap();
        std::fs::write(
            directory.path().join("pg_service.conf"),
            "[mine]\nhost=right\n",
        )
        .unwrap();
        let mut parameters = Parameters::default();
        let environment = environment(directory.path()).with_variable("PGSERVICE", "mine");
        apply(&mut parameters, &environment).unwrap();
        assert_eq!(parameters.redacted(), "host=right");
    }

    #[test]
    fn says_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("services");
        let named =
            environment(directory.path()).with_variable("PGSERVICEFILE", file.to_str().unwrap());
        let shown = file.display();
        for (text, service, expected) in [
            (None, "a", format!("service file \"{shown}\" not found")),
            (
                Some("[b]\nhost=x\n"),
                "a",
                "definition of service \"a\" not found".to_owned(),
            ),
            (
                Some("[a]\nhost\n"),
                "a",
                format!("syntax error in service file \"{shown}\", line 2"),
            ),
            (
                Some("[a]\n\nuzer=x\n"),
                "a",
                format!("syntax error in service file \"{shown}\", line 3"),
            ),
            (
                Some("[a]\nservice=b\n"),
                "a",
                format!(
                    "nested service specifications not supported in service file \"{shown}\", line 2"
                ),
            ),
        ] {
            if let Some(text) = text {
                std::fs::write(&file, text).unwrap();
            }
            let mut parameters =
                super::super::conninfo_text::parse(&format!("service={service}")).unwrap();
            assert_eq!(
                apply(&mut parameters, &named).unwrap_err().to_string(),
                expected
            );
        }
    }
}
