//! A value with its past.

/// What a place held, by the version from which on it did.
#[derive(Clone, Debug)]
pub(super) struct Cell<T>(Vec<(usize, T)>);

impl<T> Default for Cell<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Cell<T> {
    /// As of a version.
    pub(super) fn at(&self, version: usize) -> Option<&T> {
        let after = self.0.partition_point(|(since, _)| *since <= version);
        after.checked_sub(1).map(|last| &self.0[last].1)
    }

    /// The newest.
    pub(super) fn newest(&self) -> Option<&T> {
        self.0.last().map(|(_, value)| value)
    }

    /// From `version` on; not below the newest.
    pub(super) fn put(&mut self, version: usize, value: T) {
        match self.0.last_mut() {
            Some(last) if last.0 == version => last.1 = value,
            _ => self.0.push((version, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_shows_what_was_put_last_before_it() {
        let mut cell = Cell::default();
        cell.put(3, 'a');
        cell.put(5, 'b');
        cell.put(5, 'c');
        assert_eq!(
            (cell.at(2), cell.at(3), cell.at(4), cell.at(9)),
            (None, Some(&'a'), Some(&'a'), Some(&'c'))
        );
        assert_eq!(cell.newest(), Some(&'c'));
    }
}
