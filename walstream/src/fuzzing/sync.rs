//! Fuzz target of the setting that names synchronous standbys.

use crate::sync::{StandbyNames, SyncMethod};

/// A `synchronous_standby_names` setting: what parses prints to the same value, and every name that it lists has a
/// priority by its first place.
pub fn standby_names(data: &[u8]) {
    let Ok(setting) = std::str::from_utf8(data) else {
        return;
    };
    match StandbyNames::parse(setting) {
        Ok(None) => assert!(setting.is_empty()),
        Ok(Some(names)) => {
            let printed = names.to_string();
            assert_eq!(StandbyNames::parse(&printed), Ok(Some(names.clone())));
            assert!(names.num_sync() > 0 && names.names().len() > 0);
            // Every name is compared with all before it; a fuzzer makes thousands of them.
            for (index, name) in names.names().take(32).enumerate() {
                let priority = usize::try_from(names.priority(name)).unwrap();
                match names.method() {
                    SyncMethod::Priority => assert!((1..=index + 1).contains(&priority)),
                    SyncMethod::Quorum => assert_eq!(priority, 1),
                }
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(!error.message(setting).is_empty());
        }
    }
}
