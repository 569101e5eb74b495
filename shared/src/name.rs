//! Names that people give: parsed once at the boundary into types that cannot be wrong.

use std::fmt;
use std::sync::Arc;

use crate::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX, NAMESPACE_BYTES_MAX};

/// Why a name was refused. Says which field, what was wrong and what the limit is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("{field} is empty")]
    Empty { field: &'static str },
    #[error("{field} has {length} bytes; at most {max} are allowed")]
    TooLong { field: &'static str, length: usize, max: usize },
    #[error("{field} contains {character:?}; allowed are {allowed}")]
    Character { field: &'static str, character: char, allowed: &'static str },
    #[error("{field} has an empty, `.` or `..` segment; write it as a/b/c")]
    Segment { field: &'static str },
}

const SEGMENT_ALLOWED: &str = "letters, digits, `.`, `_` and `-`";

fn check_segment(field: &'static str, text: &str) -> Result<(), InvalidName> {
    if matches!(text, "" | "." | "..") {
        return Err(InvalidName::Segment { field });
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(character) => Err(InvalidName::Character { field, character, allowed: SEGMENT_ALLOWED }),
        None => Ok(()),
    }
}

fn check_length(field: &'static str, text: &str, max: usize) -> Result<(), InvalidName> {
    match text.len() {
        0 => Err(InvalidName::Empty { field }),
        length if length > max => Err(InvalidName::TooLong { field, length, max }),
        _ => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! single_segment {
    ($name:ident, $field:literal) => {
        impl $name {
            /// One segment of letters, digits, `.`, `_` and `-`, at most 64 bytes.
            ///
            /// # Errors
            /// Names the field and what is wrong with the text.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                check_length($field, text, NAME_BYTES_MAX)?;
                check_segment($field, text)?;
                Ok(Self(text.into()))
            }
        }
    };
}

name_type! {
    /// The owner of entries; nothing is shared between two of them.
    Tenant
}
single_segment!(Tenant, "tenant");

name_type! {
    /// A machine or site that keeps a replica.
    EdgeName
}
single_segment!(EdgeName, "edge name");

name_type! {
    /// One of the worlds in which a key may have its own value: `base`, `production`, …
    Environment
}

impl Environment {
    /// One segment; the short forms `dev`, `stage` and `prod` stand for the long names.
    ///
    /// # Errors
    /// Names the field and what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        check_length("environment", text, NAME_BYTES_MAX)?;
        check_segment("environment", text)?;
        Ok(Self(
            match text {
                "dev" => "development",
                "stage" => "staging",
                "prod" => "production",
                other => other,
            }
            .into(),
        ))
    }

    /// The environment that every other inherits from in the end, and the only one that secrets are inherited from.
    pub fn base() -> Self {
        Self("base".into())
    }

    /// Whether this is [`Environment::base`].
    pub fn is_base(&self) -> bool {
        self.as_str() == "base"
    }
}

name_type! {
    /// A folder path in a tenant: `app/llm`.
    Namespace
}

impl Namespace {
    /// Segments of letters, digits, `.`, `_` and `-` joined by `/`, at most 256 bytes; case matters.
    ///
    /// # Errors
    /// Names the field and what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        check_length("namespace", text, NAMESPACE_BYTES_MAX)?;
        for segment in text.split('/') {
            check_segment("namespace", segment)?;
        }
        Ok(Self(text.into()))
    }

    /// The segments in order, at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// `self` below `parent`: `edges/kiosk-7` and `app` give `edges/kiosk-7/app`.
    ///
    /// # Errors
    /// When the joined path is longer than a namespace may be.
    pub fn below(&self, parent: &Self) -> Result<Self, InvalidName> {
        Self::parse(&format!("{parent}/{self}"))
    }

    /// The subtree that belongs to one edge alone: `edges/NAME`.
    pub fn of_edge(edge: &EdgeName) -> Self {
        Self(format!("edges/{edge}").into())
    }
}

/// A namespace with everything below it, or all of the tenant's namespaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subtree(Option<Namespace>);

impl Subtree {
    /// Every namespace of the tenant.
    pub const ALL: Self = Self(None);

    /// A namespace and everything below it.
    pub fn of(namespace: Namespace) -> Self {
        Self(Some(namespace))
    }

    /// The empty text is [`Subtree::ALL`]; anything else is parsed as a namespace.
    ///
    /// # Errors
    /// As [`Namespace::parse`].
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() { Ok(Self::ALL) } else { Namespace::parse(text).map(Self::of) }
    }

    /// The namespace at the top, or none for all.
    pub fn top(&self) -> Option<&Namespace> {
        self.0.as_ref()
    }

    /// The path as text, empty for all.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", Namespace::as_str)
    }

    /// Whether `namespace` is the top or lies below it.
    pub fn contains(&self, namespace: &Namespace) -> bool {
        match &self.0 {
            None => true,
            Some(top) => match namespace.as_str().strip_prefix(top.as_str()) {
                Some(rest) => rest.is_empty() || rest.starts_with('/'),
                None => false,
            },
        }
    }

    /// Whether everything of `other` lies in `self`.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(namespace)) => self.contains(namespace),
        }
    }
}

impl fmt::Debug for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/**", self.as_str())
    }
}

name_type! {
    /// What an entry is called inside its namespace.
    Key
}

impl Key {
    /// 1 to 512 printable ASCII bytes without space.
    ///
    /// # Errors
    /// Names the field and what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        check_length("key", text, KEY_BYTES_MAX)?;
        match text.chars().find(|c| !c.is_ascii_graphic()) {
            Some(character) => Err(InvalidName::Character {
                field: "key",
                character,
                allowed: "printable ASCII characters without space",
            }),
            None => Ok(Self(text.into())),
        }
    }
}

/// The unit of digests and keys: one namespace of one tenant in one environment, without what lies below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    pub tenant: Tenant,
    pub environment: Environment,
    pub namespace: Namespace,
}

/// Where an entry lives: its identity for life, equal on every replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    pub scope: Scope,
    pub key: Key,
}

impl EntryKey {
    /// The public id of the entry: UUIDv5 (RFC 9562) of tenant, namespace, environment and key, each behind its length,
    /// so that `prod/app` + `db` and `prod` + `app/db` differ.
    pub fn id(&self) -> uuid::Uuid {
        let mut name = Vec::with_capacity(128);
        let parts = [
            self.scope.tenant.as_str(),
            self.scope.namespace.as_str(),
            self.scope.environment.as_str(),
            self.key.as_str(),
        ];
        for part in parts {
            name.extend_from_slice(&(part.len() as u32).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        uuid::Uuid::new_v5(&ENTRY_IDS, &name)
    }
}

/// The UUID namespace of entry ids. Never changes: ids are stable for life.
const ENTRY_IDS: uuid::Uuid = uuid::uuid!("6f1d2f0e-5a4c-5f0e-9a53-8e1f4a2b7c11");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_grammar_say_what_is_wrong() {
        assert_eq!(Namespace::parse("").unwrap_err().to_string(), "namespace is empty");
        for text in ["/a", "a/", "a//b", "a/./b", ".."] {
            assert_eq!(Namespace::parse(text), Err(InvalidName::Segment { field: "namespace" }), "{text}");
        }
        assert!(matches!(Namespace::parse("a b"), Err(InvalidName::Character { character: ' ', .. })));
        assert!(matches!(Key::parse("ü"), Err(InvalidName::Character { .. })));
        assert!(matches!(Key::parse(&"k".repeat(513)), Err(InvalidName::TooLong { max: 512, .. })));
        assert!(Key::parse("azure/gpt-4:2024@v1*").is_ok());
        assert_eq!(Environment::parse("prod"), Environment::parse("production"));
    }

    #[test]
    fn a_subtree_ends_at_segment_boundaries() {
        let app = Subtree::parse("app").unwrap();
        assert!(app.contains(&Namespace::parse("app").unwrap()));
        assert!(app.contains(&Namespace::parse("app/llm").unwrap()));
        assert!(!app.contains(&Namespace::parse("application").unwrap()));
        assert!(Subtree::ALL.covers(&app) && !app.covers(&Subtree::ALL));
    }

    #[test]
    fn a_boundary_moved_between_namespace_and_key_is_another_entry() {
        let entry = |namespace: &str, key: &str| EntryKey {
            scope: Scope {
                tenant: Tenant::parse("t").unwrap(),
                environment: Environment::base(),
                namespace: Namespace::parse(namespace).unwrap(),
            },
            key: Key::parse(key).unwrap(),
        };
        assert_ne!(entry("prod/app", "db/host").id(), entry("prod/app/db", "host").id());
        assert_eq!(entry("a", "b").id(), entry("a", "b").id());
    }
}
