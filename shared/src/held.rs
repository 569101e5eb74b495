//! What somebody holds of a transfer of one feed that broke off, so that the hub can send the rest instead of all again.
//!
//! The rows of a part come in the order of their keys, so what has come of it is everything up to some key. Each time that
//! the rest breaks off as well, what is held becomes one more [`Span`]: keys of the first are the newest.

use crate::limits::SPANS_MAX;
use crate::name::EntryKey;
use crate::vector::Vector;

/// A run of keys that is held as of one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// From behind the span before up to this key; none: to the feed's end.
    pub through: Option<EntryKey>,
    /// Of these keys nothing is missing that was changed up to here.
    pub to: Vector,
}

/// How much is held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    /// Where the part began: nothing for a snapshot. Beyond the last span its receiver is there still.
    pub from: Vector,
    /// In the order of their keys.
    pub spans: Vec<Span>,
}

/// The place as of which a key is held, if it lies in one of the spans.
pub fn seen<'a>(spans: &'a [Span], at: &EntryKey) -> Option<&'a Vector> {
    let reaches = |span: &&Span| span.through.as_ref().is_none_or(|through| at <= through);
    spans.iter().find(reaches).map(|span| &span.to)
}

/// Whether there are few enough, none of them empty.
pub fn are_in_order(spans: &[Span]) -> bool {
    let rises = |pair: &[Span]| match (&pair[0].through, &pair[1].through) {
        (Some(before), Some(after)) => before < after,
        (Some(_), None) => true,
        (None, _) => false,
    };
    spans.len() <= SPANS_MAX && spans.windows(2).all(rises)
}

/// What is held once everything up to `through` has come as of `to`, which is not before any of the spans. Of too many the
/// two oldest become one that promises no more than the older did.
pub fn grown(spans: &[Span], through: Option<EntryKey>, to: Vector) -> Vec<Span> {
    let beyond = |span: &&Span| match (&through, &span.through) {
        (Some(through), Some(end)) => end > through,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let rest: Vec<Span> = spans.iter().filter(beyond).cloned().collect();
    let mut grown = vec![Span { through, to }];
    grown.extend(rest);
    if grown.len() > SPANS_MAX {
        grown.remove(grown.len() - 2);
    }
    grown
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::name::{Environment, Key, Namespace, Scope, Tenant};
    use crate::vector::{Position, ShardId};

    fn key(name: &str) -> EntryKey {
        let scope = Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse("app").unwrap(),
        };
        EntryKey { scope, key: Key::parse(name).unwrap() }
    }

    fn at(seq: u64) -> Vector {
        Vector::at(ShardId(Uuid::from_u128(1)), Position { epoch: 1, seq })
    }

    fn span(through: &str, seq: u64) -> Span {
        Span { through: Some(key(through)), to: at(seq) }
    }

    #[test]
    fn a_key_is_held_as_of_the_first_span_that_reaches_it() {
        let spans = [span("d", 9), span("m", 5)];
        assert_eq!(seen(&spans, &key("d")), Some(&at(9)));
        assert_eq!(seen(&spans, &key("da")), Some(&at(5)));
        assert_eq!(seen(&spans, &key("z")), None);
        let whole = Span { through: None, to: at(3) };
        assert_eq!(seen(&[span("d", 9), whole], &key("z")), Some(&at(3)));
    }

    #[test]
    fn what_comes_covers_what_was_held_and_the_rest_stays_as_it_was() {
        let once = grown(&[], Some(key("f")), at(5));
        assert_eq!(once, [span("f", 5)]);
        assert_eq!(grown(&once, Some(key("c")), at(7)), [span("c", 7), span("f", 5)]);
        assert_eq!(grown(&once, Some(key("f")), at(7)), [span("f", 7)]);
        assert_eq!(grown(&once, None, at(7)), [Span { through: None, to: at(7) }]);
        let whole = [Span { through: None, to: at(5) }];
        assert_eq!(grown(&whole, Some(key("c")), at(7)), [span("c", 7), whole[0].clone()]);
    }

    #[test]
    fn of_too_many_breaks_the_oldest_are_joined_and_promise_what_the_older_did() {
        let mut spans = Vec::new();
        for (name, seq) in ["p", "o", "n", "m", "l", "k"].into_iter().zip(1..) {
            spans = grown(&spans, Some(key(name)), at(seq));
            assert!(are_in_order(&spans), "{spans:?}");
        }
        assert_eq!(spans.len(), SPANS_MAX);
        assert_eq!(spans.last(), Some(&span("p", 1)));
        assert_eq!(seen(&spans, &key("k")), Some(&at(6)));
        for (name, seq) in ["o", "n", "m", "l", "k"].into_iter().zip(2..) {
            let promised = seen(&spans, &key(name)).map(|vector| vector.seq(ShardId(Uuid::from_u128(1))));
            assert!(promised.is_some_and(|promised| promised <= seq), "{name}");
        }
    }

    #[test]
    fn spans_out_of_order_are_told() {
        assert!(are_in_order(&[]) && are_in_order(&[span("a", 2), Span { through: None, to: at(1) }]));
        assert!(!are_in_order(&[span("b", 2), span("a", 1)]) && !are_in_order(&[span("a", 2), span("a", 1)]));
        assert!(!are_in_order(&[Span { through: None, to: at(1) }, span("a", 2)]));
        assert!(!are_in_order(&vec![span("a", 2); SPANS_MAX + 1]));
    }
}
