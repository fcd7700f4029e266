//! Which objects a list or watch is about: scope, labels and fields, made ready to be tested many times.

use super::Scope;
use crate::fields;
use crate::options::ListOptions;
use crate::registry::Entry;
use crate::watch_cache::{Interest, Item};
use api::resource::Field;
use api::{LabelSelector, Status};

/// Where the value of a field is found.
#[derive(Clone, Debug)]
enum Place {
    Name,
    Namespace,
    /// Among the values that the cache extracted.
    Item(usize),
    /// In the object as the row shows it.
    Shown(Field),
}

/// A test of objects.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    namespace: String,
    name: String,
    labels: LabelSelector,
    terms: Vec<(Place, bool, String)>,
}

impl Selection {
    /// From a request and its options.
    pub(crate) fn new(scope: &Scope, options: &ListOptions) -> Result<Self, Status> {
        let entry = &scope.entry;
        let extracted = scope.cache()?.fields();
        let place = |name: &str| match name {
            "metadata.name" => Some(Place::Name),
            "metadata.namespace" => Some(Place::Namespace),
            _ => {
                let field = entry.resource.fields.iter().find(|field| field.name == name)?;
                let same = |own: &Field| own.name == field.name && own.pointer == field.pointer;
                let index = extracted.iter().position(same).filter(|_| !entry.resource.strategy.converts());
                Some(index.map_or_else(|| Place::Shown(field.clone()), Place::Item))
            }
        };
        let term = |(name, equal, value): &(String, bool, String)| {
            let place = place(name)
                .ok_or_else(|| Status::bad_request(format!("field label not supported: {name}")))?;
            Ok((place, *equal, value.clone()))
        };
        let terms = options.fields.terms.iter().map(term).collect::<Result<Vec<_>, Status>>()?;
        Ok(Self {
            namespace: scope.namespace().to_owned(),
            name: if scope.target.has_name { scope.target.name.clone() } else { String::new() },
            labels: options.labels.clone(),
            terms,
        })
    }

    /// The namespace; empty for all.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether every object of the namespace matches.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.terms.is_empty() && self.name.is_empty()
    }

    /// What the publisher may test before it queues.
    pub(crate) fn interest(&self) -> Interest {
        let required = |wanted: fn(&Place) -> bool| {
            let mut terms = self.terms.iter();
            terms.find(|(place, equal, _)| *equal && wanted(place))
        };
        let name = required(|place| matches!(place, Place::Name)).map(|(_, _, value)| value.as_str());
        let field = self.terms.iter().find_map(|(place, equal, value)| match place {
            Place::Item(index) if *equal => Some((*index, value.as_str().into())),
            _ => None,
        });
        let name = name.filter(|_| self.name.is_empty()).unwrap_or(&self.name);
        Interest { namespace: self.namespace.as_str().into(), name: name.into(), field }
    }

    /// The one name that can match, if there is only one.
    pub(crate) fn only_name(&self) -> Option<&str> {
        if !self.name.is_empty() {
            return Some(&self.name);
        }
        let term = self.terms.iter().find(|(place, equal, _)| *equal && matches!(place, Place::Name));
        term.map(|(_, _, value)| value.as_str())
    }

    /// Whether an object matches.
    ///
    /// # Errors
    /// It cannot be shown as the row shows it.
    pub(crate) async fn matches(&self, entry: &Entry, item: &Item) -> Result<bool, Status> {
        let meta = &item.object.meta;
        if !self.namespace.is_empty() && *self.namespace != *meta.key.namespace {
            return Ok(false);
        }
        if !self.name.is_empty() && *self.name != *meta.key.name {
            return Ok(false);
        }
        if !self.labels.matches(|key| meta.label(key)) {
            return Ok(false);
        }
        for (place, equal, value) in &self.terms {
            let is_equal = match place {
                Place::Name => *meta.key.name == **value,
                Place::Namespace => *meta.key.namespace == **value,
                Place::Item(index) => item.fields.get(*index).is_some_and(|found| **found == **value),
                Place::Shown(field) => {
                    let shown = entry.present(item).await?;
                    let found = fields::extract(&shown.json, std::slice::from_ref(field));
                    found.is_ok_and(|found| *found[0] == **value)
                }
            };
            if is_equal != *equal {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
