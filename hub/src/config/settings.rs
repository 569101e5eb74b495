//! Dotted keys from a TOML file and from variables, taken one by one; what is left over was not known.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What is wrong with one setting. Never repeats a value that could be secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, or the variable that set it.
    pub key: String,
    pub what: String,
}

/// Everything that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    pub problems: Vec<Problem>,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "the settings have a problem: {}: {}", only.key, only.what),
            many => {
                write!(f, "the settings have {} problems:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {}: {}", problem.key, problem.what))
            }
        }
    }
}

impl std::error::Error for InvalidConfig {}

struct Setting {
    value: toml::Value,
    /// The variable that it came from.
    variable: Option<String>,
}

/// Settings that have not been asked for yet, and the problems found so far.
pub(super) struct Settings {
    left: BTreeMap<String, Setting>,
    /// Keys that were asked for, and the variables that set them.
    known: BTreeMap<String, Option<String>>,
    problems: Vec<Problem>,
}

impl Settings {
    /// # Errors
    /// When the text is not TOML: then nothing else can be said about it.
    pub(super) fn read(
        text: &str,
        variable_prefix: &str,
        variables: &BTreeMap<String, String>,
    ) -> Result<Self, InvalidConfig> {
        let table: toml::Table = text.parse().map_err(|error| not_toml(text, &error))?;
        let mut settings = Self { left: BTreeMap::new(), known: BTreeMap::new(), problems: Vec::new() };
        settings.flatten("", table);
        for (variable, value) in variables {
            // A name without a section is another program's.
            let Some(path) = variable.strip_prefix(variable_prefix).filter(|path| path.contains("__")) else {
                continue;
            };
            let key = path.to_ascii_lowercase().replace("__", ".");
            let value = toml::Value::String(value.clone());
            settings.left.insert(key, Setting { value, variable: Some(variable.clone()) });
        }
        Ok(settings)
    }

    fn flatten(&mut self, prefix: &str, table: toml::Table) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            if let toml::Value::Table(inner) = value {
                self.flatten(&key, inner);
            } else {
                self.left.insert(key, Setting { value, variable: None });
            }
        }
    }

    /// Notes a problem of a key that was asked for.
    pub(super) fn problem(&mut self, key: &str, what: String) {
        let key = self.known.get(key).cloned().flatten().unwrap_or_else(|| key.to_owned());
        self.problems.push(Problem { key, what });
    }

    /// Notes that a key is missing, unless it was there and wrong.
    pub(super) fn required(&mut self, key: &str, example: &str) {
        if !self.problems.iter().any(|problem| problem.key == key) {
            self.problem(key, format!("is missing; set it to {example}"));
        }
    }

    /// The keys that begin so.
    pub(super) fn below(&self, prefix: &str) -> Vec<String> {
        self.left.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    fn take(&mut self, key: &str) -> Option<toml::Value> {
        let setting = self.left.remove(key);
        self.known.insert(key.to_owned(), setting.as_ref().and_then(|setting| setting.variable.clone()));
        setting.map(|setting| setting.value)
    }

    /// A text.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let value = self.take(key)?;
        if let toml::Value::String(text) = value {
            return Some(text);
        }
        self.problem(key, format!("must be a text, not {}", article(value.type_str())));
        None
    }

    /// A text of a form.
    pub(super) fn parsed<T: FromStr>(&mut self, key: &str, form: &str) -> Option<T> {
        let text = self.text(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem(key, format!("{text:?} is not {form}"));
        }
        parsed
    }

    /// Yes or no; a variable says `true` or `false`.
    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        let flag = match self.take(key)? {
            toml::Value::Boolean(flag) => Some(flag),
            toml::Value::String(text) => text.parse().ok(),
            toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => None,
        };
        if flag.is_none() {
            self.problem(key, "must be true or false".to_owned());
        }
        flag
    }

    /// Whether anything was said below a key that nobody has asked for yet.
    pub(super) fn has_table(&self, key: &str) -> bool {
        self.left.keys().any(|left| left.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The names of the tables in a table that nobody has asked for yet.
    pub(super) fn tables_in(&self, key: &str) -> Vec<String> {
        let rest = |left: &str| -> Option<String> {
            let (name, _) = left.strip_prefix(key)?.strip_prefix('.')?.split_once('.')?;
            Some(name.to_owned())
        };
        let mut names: Vec<String> = self.left.keys().filter_map(|left| rest(left)).collect();
        names.dedup();
        names
    }

    /// Whether a key that was asked for came from the environment.
    pub(super) fn is_from_variable(&self, key: &str) -> bool {
        self.known.get(key).is_some_and(Option::is_some)
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = match self.take(key)? {
            toml::Value::Integer(number) => u64::try_from(number).ok(),
            toml::Value::String(text) => text.parse().ok(),
            toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => None,
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                self.problem(
                    key,
                    format!("must be a whole number from {} to {}", range.start(), range.end()),
                );
                None
            }
        }
    }

    /// # Errors
    /// All problems, those of keys that nobody asked for included.
    pub(super) fn finish(mut self) -> Result<(), InvalidConfig> {
        for (key, setting) in &self.left {
            let section = key.split_once('.').map_or("", |(section, _)| section);
            let beside: Vec<&str> = self
                .known
                .keys()
                .filter(|known| known.split_once('.').is_some_and(|(of, _)| of == section))
                .map(String::as_str)
                .collect();
            let what = if beside.is_empty() {
                "is in a section that does not exist".to_owned()
            } else {
                format!("is not known; there are {}", beside.join(", "))
            };
            let key = setting.variable.clone().unwrap_or_else(|| key.clone());
            self.problems.push(Problem { key, what });
        }
        if self.problems.is_empty() { Ok(()) } else { Err(InvalidConfig { problems: self.problems }) }
    }
}

fn article(kind: &str) -> String {
    if kind.starts_with(['a', 'i']) { format!("an {kind}") } else { format!("a {kind}") }
}

/// The parser's own text shows the line, which may hold a password.
fn not_toml(text: &str, error: &toml::de::Error) -> InvalidConfig {
    let at = error.span().map_or(0, |span| span.start);
    let line = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
    let what = format!("is not TOML at line {line}: {}", error.message());
    InvalidConfig { problems: vec![Problem { key: "hub.toml".to_owned(), what }] }
}
