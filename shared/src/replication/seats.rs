//! Sessions of one edge that are open at the same time: half-open ones, and those of copies.

/// How a replica says which of its sessions this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub incarnation: u64,
    pub session: u64,
}

/// What another open session of the same edge is to the one that greets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Of another replica under the same certificate. Both may stay.
    Stranger,
    /// Half-open: its replica has begun this newer one. It ends.
    Older,
    /// A replica never uses a number twice, nor a lower one: there are two of it. Both may stay until one of them has
    /// taken an incarnation of its own.
    Twin,
}

impl Greeting {
    /// Compares with a session that greeted before.
    pub fn meets(self, earlier: Self) -> Meeting {
        if self.incarnation != earlier.incarnation {
            Meeting::Stranger
        } else if earlier.session < self.session {
            Meeting::Older
        } else {
            Meeting::Twin
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lower_number_of_the_same_replica_is_half_open() {
        let greeting = |incarnation, session| Greeting { incarnation, session };
        let new = greeting(7, 5);
        assert_eq!(new.meets(greeting(7, 4)), Meeting::Older);
        assert_eq!(new.meets(greeting(7, 5)), Meeting::Twin);
        assert_eq!(new.meets(greeting(7, 6)), Meeting::Twin);
        assert_eq!(new.meets(greeting(8, 1)), Meeting::Stranger);
    }
}
