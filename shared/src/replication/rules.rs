//! Switches for the rules of replication, so that a simulation can turn each off and show that it is missed.
//!
//! Programs use [`Rules::ALL`]. Nothing else belongs here: a rule without a switch is a rule without a proof.

/// Which rules hold. Every field is true in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A hub serves an edge only if it has seen all that the edge was told of.
    pub dominance: bool,
    /// An edge remembers how far each page's hub had come before it keeps anything of the page.
    pub floor: bool,
    /// Rows that the replica's vector covers already are skipped.
    pub skip_covered: bool,
    /// A transfer is taken only if it continues what the replica has.
    pub continuity: bool,
    /// The vector moves with the last row, not before it.
    pub vector_last: bool,
    /// Own pending writes are hidden by the row that follows them, not by the hub's answer.
    pub hide_by_row: bool,
    /// The ceiling of counters is durable before a counter below it is used.
    pub counter_ceiling: bool,
    /// Nothing is acknowledged, to the hub or to a caller, before it is durable.
    pub durable_first: bool,
    /// The hybrid clock takes in what it sees.
    pub clock_receive: bool,
    /// A stamp that is ahead of the hub is replaced from the later of the hub's clocks, not from its physical one alone.
    pub restamp_hybrid: bool,
    /// Each feed has a vector of its own.
    pub vector_per_feed: bool,
    /// What a feed holds is compared with what the hub says that it holds, before it is shown.
    pub digest: bool,
    /// A position counts only within the history that the table of epochs describes; an edge beyond it is served only
    /// with the hub's statement of what was lost, and then from nothing.
    pub lost_history: bool,
    /// A patch is applied to the value that it names and to no other, and gives what the hub holds.
    pub patch_base: bool,
    /// A replica that was copied or set back is noticed, and goes on under an incarnation of its own.
    pub clones: bool,
    /// What wins by the policy of its namespace gets a stamp above what it replaces.
    pub restamp_winner: bool,
    /// What loses by the policy of its namespace gets a stamp below what it lost to.
    pub restamp_loser: bool,
    /// Between an edge's own writes their counters decide which one readers see.
    pub own_by_counter: bool,
    /// The conflict test runs again where a write of another region arrives.
    pub judge_regions: bool,
    /// The write that an author saw is told from others by its change: a copy of a replica may have given its stamp too.
    pub base_change: bool,
    /// A number under which another region has something else is another write: a copy of a replica made it.
    pub region_copies: bool,
    /// Between two writes that copies made under one number at one time decides what they say, not their names, which
    /// differ between regions.
    pub region_ties: bool,
    /// A write that two regions have under two times counts under the later one in both.
    pub region_times: bool,
    /// A region gives no version of an entry twice, whatever others have given.
    pub region_versions: bool,
    /// What a followed hub has lost since it was followed counts as lost there, whatever numbers it gives again.
    pub region_epochs: bool,
    /// What goes on with a broken transfer is taken only if it goes on with what is held of that here.
    pub held_fits: bool,
    /// How much is held of a transfer becomes durable with the last of its rows, not before.
    pub held_last: bool,
    /// Own writes that the hub admitted are kept for a while, for a hub that comes back from a backup of before.
    pub grace: bool,
    /// What an edge brings back after a loss keeps the change that its author made it in.
    pub returned_change: bool,
    /// A file from the hub is taken only if its hub had seen all that this edge was told of.
    pub carried_age: bool,
    /// A file from the hub is taken only if this edge holds what the file goes on from.
    pub carried_gap: bool,
}

impl Rules {
    /// What programs run with.
    pub const ALL: Self = Self {
        dominance: true,
        floor: true,
        skip_covered: true,
        continuity: true,
        vector_last: true,
        hide_by_row: true,
        counter_ceiling: true,
        durable_first: true,
        clock_receive: true,
        restamp_hybrid: true,
        vector_per_feed: true,
        digest: true,
        lost_history: true,
        patch_base: true,
        clones: true,
        restamp_winner: true,
        restamp_loser: true,
        own_by_counter: true,
        judge_regions: true,
        base_change: true,
        region_copies: true,
        region_ties: true,
        region_times: true,
        region_versions: true,
        region_epochs: true,
        held_fits: true,
        held_last: true,
        grace: true,
        returned_change: true,
        carried_age: true,
        carried_gap: true,
    };
}
