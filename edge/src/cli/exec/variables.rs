//! Variables: which entries become which variables of a process, and under which names.

use std::collections::BTreeMap;

use super::super::dotenv;
use super::super::exit::Failure;
use super::super::reading;

/// Variables by which a program is made to run other code, or finds its programs. Whoever may write a namespace shall not
/// get that by the name of a key; `--var` says that it is meant.
const GUARDED: [&str; 6] = ["BASH_ENV", "ENV", "GCONV_PATH", "HOME", "IFS", "PATH"];
const GUARDED_PREFIXES: [&str; 3] = ["DYLD_", "LD_", "LLM_CONFIG_"];

/// A variable that was asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) variable: String,
    pub(super) place: Place,
    /// Whether it may be missing.
    pub(super) optional: bool,
}

/// Where a value lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) key: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.namespace, self.key)
    }
}

/// `--var` as it was written; its namespace may still be the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VarArg {
    variable: String,
    place: String,
    optional: bool,
}

impl std::str::FromStr for VarArg {
    type Err = String;

    /// `VAR=KEY`, `VAR=NAMESPACE//KEY`, or with `?=` for what may be missing.
    fn from_str(text: &str) -> Result<Self, String> {
        let (variable, place) = text
            .split_once('=')
            .ok_or("say VAR=KEY, or VAR=NAMESPACE//KEY, or VAR?=KEY if it may be missing")?;
        let (variable, optional) = match variable.strip_suffix('?') {
            Some(variable) => (variable, true),
            None => (variable, false),
        };
        if !dotenv::is_name(variable) {
            return Err(format!("{variable:?} is no variable name; use letters, digits and `_`"));
        }
        Ok(Self { variable: variable.to_owned(), place: place.to_owned(), optional })
    }
}

/// The variables that `--var` asks for, each once.
///
/// # Errors
/// When a place has no namespace, or a variable is asked for twice.
pub(super) fn named(args: &[VarArg], default: Option<&str>) -> Result<Vec<Named>, Failure> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut all = Vec::with_capacity(args.len());
    for arg in args {
        if let Some(other) = seen.insert(&arg.variable, &arg.place) {
            let VarArg { variable, place, .. } = arg;
            return Err(Failure::usage(format!("--var gives {variable} twice: from {other} and {place}")));
        }
        let (namespace, key) = reading::place(&arg.place, default)
            .map_err(|why| Failure::usage(format!("--var {}: {why}", arg.variable)))?;
        all.push(Named {
            variable: arg.variable.clone(),
            place: Place { namespace, key },
            optional: arg.optional,
        });
    }
    Ok(all)
}

/// The variable of each key of a namespace: upper case, with `_` for `-`, `.` and `/`.
///
/// # Errors
/// When a key gives no name, one that is guarded, or the same as another key.
pub(super) fn of_keys<'a>(keys: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    for key in keys {
        let name = key.to_ascii_uppercase().replace(['-', '.', '/'], "_");
        let problem = if !dotenv::is_name(&name) {
            "makes no variable name"
        } else if is_guarded(&name) {
            "would set a variable by which programs are found or loaded"
        } else {
            ""
        };
        if !problem.is_empty() {
            return Err(Failure::usage(format!("{key} {problem}; name what you need with --var VAR=KEY")));
        }
        if let Some(other) = variables.insert(name.clone(), key.to_owned()) {
            return Err(Failure::usage(format!(
                "{other} and {key} would both be {name}; name what you need with --var VAR=KEY"
            )));
        }
    }
    Ok(variables)
}

fn is_guarded(name: &str) -> bool {
    GUARDED.contains(&name) || GUARDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(keys: &[&str]) -> Result<Vec<String>, String> {
        let found = of_keys(keys.iter().copied());
        found.map(|found| found.into_keys().collect()).map_err(|failure| failure.message)
    }

    #[test]
    fn a_key_is_a_variable_by_one_rule() {
        assert_eq!(
            names(&["db.url", "api-key", "a/b", "Plain_1"]).unwrap(),
            ["API_KEY", "A_B", "DB_URL", "PLAIN_1"]
        );
    }

    #[test]
    fn what_would_surprise_is_refused_by_name() {
        let told = names(&["api-key", "api.key"]).unwrap_err();
        assert!(told.contains("api-key and api.key would both be API_KEY"), "{told}");
        for key in ["gpt-4:v1", "1st", "ü"] {
            assert!(names(&[key]).unwrap_err().contains(key));
        }
        for key in ["ld_preload", "path", "env", "ld.library.path", "llm-config-token"] {
            assert!(names(&[key]).unwrap_err().contains("programs are found or loaded"), "{key}");
        }
    }

    #[test]
    fn a_variable_is_asked_for_by_name() {
        let parse = |text: &str| text.parse::<VarArg>();
        let args: Vec<_> = ["KEY=provider.key", "URL=db/main//url", "TRACE?=trace", "PATH=path", "Q=a=b"]
            .map(|a| parse(a).unwrap())
            .into();
        let told: Vec<_> = named(&args, Some("app"))
            .unwrap()
            .into_iter()
            .map(|n| format!("{} {} {}", n.variable, n.place, n.optional))
            .collect();
        let expected = [
            "KEY app provider.key false",
            "URL db/main url false",
            "TRACE app trace true",
            "PATH app path false",
            "Q app a=b false",
        ];
        assert_eq!(told, expected);
        for bad in ["KEY", "=k", "1A=k", "A-B=k"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let twice = [parse("A=x").unwrap(), parse("A?=y").unwrap()];
        assert!(named(&twice, Some("app")).unwrap_err().message.contains("A twice: from x and y"));
        assert!(named(&args[..1], None).unwrap_err().message.contains("--namespace"));
    }
}
