//! What a plugin is: a name, functions, and what may make a refused pod fit after all.

use crate::snapshot::{NodeInfo, Snapshot};
use crate::view::PodView;

/// What a plugin says of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The pod may go there.
    Fits,
    /// Not now; evicting pods may help. One reason for each thing that is missing.
    Unschedulable(Vec<String>),
    /// Not whatever is evicted.
    Never(&'static str),
}

/// What a plugin does for one pod, decided once per pod.
pub enum Filter<'a> {
    /// Nothing: every node passes.
    Skip,
    /// Looks at each node.
    Each(Box<dyn Fn(&NodeInfo) -> Verdict + 'a>),
    /// The pod fits nowhere, for this reason.
    Nowhere(String),
}

impl<'a> Filter<'a> {
    /// Looks at each node.
    pub fn each(filter: impl Fn(&NodeInfo) -> Verdict + 'a) -> Self {
        Self::Each(Box::new(filter))
    }
}

/// A score of one node for one pod: larger is better, from 0 to [`SCORE_MAX`] after normalising.
pub type Score<'a> = Box<dyn Fn(&NodeInfo) -> i64 + 'a>;

/// The best score that a plugin gives.
pub const SCORE_MAX: i64 = 100;

/// How raw scores become 0 to [`SCORE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalize {
    /// They already are.
    Done,
    /// The largest becomes [`SCORE_MAX`], 0 stays 0.
    Scale,
    /// The largest becomes 0, 0 becomes [`SCORE_MAX`].
    Reverse,
    /// The smallest becomes 0, the largest [`SCORE_MAX`].
    Spread,
}

/// News that may make a refused pod fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Wake {
    NodeAdded,
    NodeAllocatableGrew,
    NodeLabelsChanged,
    NodeTaintsChanged,
    PodRemoved,
    PodAssigned,
    PodLabelsChanged,
    PodSpecChanged,
    NamespaceLabelsChanged,
}

/// The signature of a filter: the pod is looked at once, the result looks at each node.
pub type FilterFn = for<'a> fn(&'a PodView, &'a Snapshot) -> Filter<'a>;
/// The signature of a score. `None`: nothing to say for this pod.
pub type ScoreFn = for<'a> fn(&'a PodView, &'a Snapshot) -> Option<Score<'a>>;

/// A plugin: one row of the table in `plugins`.
pub struct Plugin {
    /// Upstream's name.
    pub name: &'static str,
    /// Which nodes are possible.
    pub filter: Option<FilterFn>,
    /// Which are better.
    pub score: Option<(ScoreFn, Normalize, i64)>,
    /// What may make a pod that this plugin refused fit.
    pub wakes_on: &'static [Wake],
}

impl Plugin {
    /// A plugin that does nothing yet.
    pub const fn new(name: &'static str) -> Self {
        Self { name, filter: None, score: None, wakes_on: &[] }
    }

    /// With this filter.
    pub const fn filter(mut self, filter: FilterFn) -> Self {
        self.filter = Some(filter);
        self
    }

    /// With this score and weight.
    pub const fn score(mut self, score: ScoreFn, normalize: Normalize, weight: i64) -> Self {
        self.score = Some((score, normalize, weight));
        self
    }

    /// Waking on these news.
    pub const fn wakes_on(mut self, news: &'static [Wake]) -> Self {
        self.wakes_on = news;
        self
    }
}
