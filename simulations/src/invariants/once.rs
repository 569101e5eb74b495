//! 11: over a session an edge is sent nothing twice: each part goes on from where the last one of its feed came to, or from
//! the change before that where others share it, or brings everything where deletions are gone that it has not heard of.

use std::collections::BTreeMap;

use llm_config_shared::feed::Feed;

use super::{Check, Violation};

/// The segments of one feed in a transfer: how many, and from where to where they say that they go.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub feed: Feed,
    pub segments: usize,
    /// None: everything.
    pub from: Option<u64>,
    /// It goes on with what is held of a part that broke off.
    pub continues: bool,
}

/// What a session has sent.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// How far each feed has come.
    to: BTreeMap<Feed, u64>,
    /// The transfer that the session was given last, and where that comes to.
    given: Option<(Vec<Stretch>, u64)>,
    segments: usize,
}

impl Sent {
    /// The edge says what it has, at the beginning or once more.
    pub fn begins(&mut self, feeds: impl Iterator<Item = (Feed, u64)>) {
        *self = Self { to: feeds.collect(), ..Self::default() };
    }

    /// The session is given the parts of a transfer, and may send them.
    pub fn is_given(&mut self, parts: Vec<Stretch>, to: u64) {
        self.given = Some((parts, to));
    }

    /// A segment goes out.
    pub fn segment(&mut self) {
        self.segments += 1;
    }

    /// The end of a transfer goes out. `start` says from where on a feed is sent to one that has come to a place, so that
    /// others may share it; below `horizon` deletions are gone. At some places so much has changed that everything is `smaller`.
    ///
    /// # Errors
    /// When something went out twice, or was left out.
    pub fn end(
        &mut self,
        horizon: u64,
        smaller: impl Fn(u64) -> bool,
        start: impl Fn(&Feed, u64) -> u64,
    ) -> Check {
        let wrong = |what: String| Err(Violation::new("once", what));
        let Some((parts, to)) = self.given.take() else { return wrong("an end without a transfer".into()) };
        let given: usize = parts.iter().map(|part| part.segments).sum();
        if std::mem::take(&mut self.segments) != given {
            return wrong(format!("not the {given} segments of a transfer"));
        }
        for Stretch { feed, segments, from, continues } in parts {
            let came_to = self.to.insert(feed.clone(), to).filter(|came_to| *came_to > 0);
            let fits = match (came_to, from) {
                (None, from) => from.is_none(),
                (Some(came_to), None) => continues || smaller(to) || start(&feed, came_to) < horizon,
                // It may have come from somebody else's transfer; that no more is sent than is lacking is looked at elsewhere.
                (Some(came_to), Some(from)) if continues => from <= came_to,
                (Some(came_to), Some(from)) => (start(&feed, came_to)..=came_to).contains(&from),
            };
            if segments > 0 && !fits {
                let how = if continues { "further" } else { "anew" };
                return wrong(format!("{feed:?} is sent {how} from {from:?} to who has come to {came_to:?}"));
            }
        }
        Ok(())
    }
}
