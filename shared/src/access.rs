//! May this caller do that.

/// What an API token allows. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Reader,
    Writer,
    Admin,
}

impl Role {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        }
    }

    /// The inverse of [`Role::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Reader, Self::Writer, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }

    /// Whether a caller with this role may.
    pub fn may(self, permission: Permission) -> bool {
        self >= permission.least()
    }
}

/// Kinds of requests that are allowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Entries, history, changes, conflicts, events; secrets masked.
    Read,
    /// The plaintext of a secret.
    Reveal,
    /// Setting, deleting, rolling back.
    Write,
    /// Tokens, tenants, environments, edges.
    Administer,
}

impl Permission {
    fn least(self) -> Role {
        match self {
            Self::Read => Role::Reader,
            Self::Reveal | Self::Write => Role::Writer,
            Self::Administer => Role::Admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_ones_before_it() {
        assert!(Role::Reader.may(Permission::Read) && !Role::Reader.may(Permission::Reveal));
        assert!(Role::Writer.may(Permission::Write) && !Role::Writer.may(Permission::Administer));
        assert!(Role::Admin.may(Permission::Administer));
        assert_eq!(Role::parse("writer"), Some(Role::Writer));
        assert_eq!(Role::parse("root"), None);
    }
}
