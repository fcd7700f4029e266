//! The properties of a schema's node. There are many nodes with few properties each, and they never change once read: a slice has
//! no room to spare, where a tree has room for eleven in each of its nodes.

/// What a schema says of fields, by their names.
#[derive(Clone, Debug, PartialEq)]
pub struct Properties<T>(Box<[(Box<str>, T)]>);

impl<T> Default for Properties<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T> Properties<T> {
    /// Of a field; `None` for one that the schema does not name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.binary_search_by(|(own, _)| (**own).cmp(name)).ok().map(|at| &self.0[at].1)
    }

    /// All of them, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, own)| (&**name, own))
    }

    /// Of all of them.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, own)| own)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> FromIterator<(Box<str>, T)> for Properties<T> {
    fn from_iter<I: IntoIterator<Item = (Box<str>, T)>>(all: I) -> Self {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self(all.into())
    }
}

#[cfg(test)]
mod tests {
    use super::Properties;

    #[test]
    fn properties_are_found_by_name() {
        let own: Properties<u8> =
            ["b", "a", "c"].into_iter().zip(1..).map(|(name, own)| (name.into(), own)).collect();
        assert_eq!((own.get("a"), own.get("b"), own.get("d")), (Some(&2), Some(&1), None));
        assert_eq!(own.iter().map(|(name, _)| name).collect::<String>(), "abc");
        assert!(!own.is_empty() && Properties::<u8>::default().is_empty());
    }
}
