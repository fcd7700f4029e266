//! Sets of completion indexes in their text form (`1,3-5,7`). Pure. Upstream: indexed_job_utils.go.

use std::collections::BTreeSet;
use std::fmt;

/// Indexes as ordered ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads the text form; what is malformed or not below `completions` is left out.
    pub(crate) fn parse(text: &str, completions: i32) -> Self {
        let mut all = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                let last = last.min(completions - 1);
                if first >= 0 && first <= last {
                    all.add(first, last);
                }
            }
        }
        all
    }

    /// Adds a range.
    fn add(&mut self, first: i32, last: i32) {
        let (mut first, mut last) = (first, last);
        let touches =
            |range: &(i32, i32)| range.0 <= last.saturating_add(1) && first <= range.1.saturating_add(1);
        let start = self.0.partition_point(|range| range.1.saturating_add(1) < first);
        let end = start + self.0[start..].iter().take_while(|range| touches(range)).count();
        for range in &self.0[start..end] {
            first = first.min(range.0);
            last = last.max(range.1);
        }
        self.0.splice(start..end, [(first, last)]);
    }

    /// The same and these.
    pub(crate) fn with(&self, more: impl IntoIterator<Item = i32>) -> Self {
        let mut all = self.clone();
        more.into_iter().for_each(|index| all.add(index, index));
        all
    }

    /// The same and those.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        other.0.iter().for_each(|(first, last)| all.add(*first, *last));
        all
    }

    pub(crate) fn has(&self, index: i32) -> bool {
        let position = self.0.partition_point(|range| range.1 < index);
        self.0.get(position).is_some_and(|range| range.0 <= index)
    }

    /// How many.
    pub(crate) fn len(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are also in `other`.
    pub(crate) fn common(&self, other: &Self) -> i32 {
        let overlap = |a: &(i32, i32), b: &(i32, i32)| (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
        self.0.iter().map(|a| other.0.iter().map(|b| overlap(a, b)).sum::<i32>()).sum()
    }

    /// The first `count` indexes below `completions` that are not in the set.
    pub(crate) fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut found = Vec::new();
        let mut candidate = 0;
        let ends = self.0.iter().copied().chain([(completions, completions)]);
        for (first, last) in ends {
            while candidate < first.min(completions) && found.len() < count {
                found.push(candidate);
                candidate += 1;
            }
            candidate = candidate.max(last.saturating_add(1));
        }
        found
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        let ordered: BTreeSet<_> = indexes.into_iter().collect();
        Self::default().with(ordered)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_set_are_the_same_thing() {
        let check = |text: &str, completions: i32, expect: &str, len: i32| {
            let indexes = Indexes::parse(text, completions);
            assert_eq!((indexes.to_string().as_str(), indexes.len()), (expect, len), "{text}");
        };
        check("", 10, "", 0);
        check("0", 10, "0", 1);
        check("1,3-5,7", 10, "1,3-5,7", 5);
        check("1-2", 10, "1,2", 2);
        check("1,2,3", 10, "1-3", 3);
        check("3-12", 10, "3-9", 7);
        check("12", 10, "", 0);
        check("x,2,-1", 10, "2", 1);
        check("5-3", 10, "", 0);
    }

    #[test]
    fn sets_are_joined_and_compared() {
        let set = Indexes::parse("1,3-5", 10);
        assert_eq!(set.with([0, 2, 9]).to_string(), "0-5,9");
        assert_eq!(set.union(&Indexes::parse("4-7", 10)).to_string(), "1,3-7");
        assert!(set.has(4) && !set.has(2) && !set.has(6));
        assert_eq!(set.common(&Indexes::parse("0-3", 10)), 2);
        assert_eq!(set.missing(3, 10), [0, 2, 6]);
        assert_eq!(set.missing(9, 7), [0, 2, 6]);
        assert_eq!(Indexes::default().missing(2, 5), [0, 1]);
        assert_eq!([5, 1, 2].into_iter().collect::<Indexes>().to_string(), "1,2,5");
    }
}
