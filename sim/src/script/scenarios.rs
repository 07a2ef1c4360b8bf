//! The scenarios that come with the simulator, and those in files.

use std::{fs, path::Path};

use super::{Script, ScriptError};

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),*]
    };
}

/// Name and text of each.
pub const ALL: [(&str, &str); 15] = scenarios![
    "all-disks-full",
    "cascading-full-disks",
    "cut-of-ten-seconds",
    "fifty-join",
    "flapping-link",
    "hot-keys",
    "keeping-fresh",
    "lost-disk",
    "mass-failure",
    "removed-members",
    "rolling-restart",
    "slow-node",
    "small-disks",
    "split-brain",
    "thundering-herd",
];

/// The scenario of that name, or in that file.
///
/// # Errors
/// There is none, or it cannot be run.
pub fn load(name: &str) -> Result<Script, ScriptError> {
    if let Some((name, text)) = ALL.iter().find(|(known, _)| *known == name) {
        let mut script = Script::parse(text)?;
        script.name = (*name).to_owned();
        return Ok(script);
    }
    let path = Path::new(name);
    if path.extension().is_none_or(|extension| extension != "toml") {
        let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        let hint = format!("there is no scenario `{name}`: give a .toml file, or one of {}", known.join(", "));
        return Err(ScriptError(hint));
    }
    let text = fs::read_to_string(path).map_err(|error| ScriptError(format!("{name}: {error}")))?;
    let mut script = Script::parse(&text).map_err(|error| ScriptError(format!("{name}: {error}")))?;
    if script.name.is_empty() {
        script.name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_can_be_run_and_says_what_it_shows() {
        for (name, _) in ALL {
            let script = load(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!script.about.is_empty(), "{name}");
        }
        assert!(load("no-such").unwrap_err().to_string().contains("split-brain"));
        assert!(load("no-such.toml").unwrap_err().to_string().contains("no-such.toml"));
    }
}
