//! How endpoints are spread over slices. Pure.
//!
//! The aim is few writes: a slice that is right stays untouched, one that is changed anyway is filled, and only what then is
//! left makes new slices.

use crate::template::canonical;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashMap};

/// Endpoints of one address family that share their ports.
pub(crate) struct Group {
    pub(crate) address_type: &'static str,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What must be written.
#[derive(Default, Debug)]
pub(crate) struct Writes {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    /// Names.
    pub(crate) delete: Vec<String>,
}

/// Collects endpoints into groups.
#[derive(Default)]
pub(crate) struct Groups(BTreeMap<(String, String), Group>);

impl Groups {
    /// Makes sure that there is a group, even without endpoints.
    pub(crate) fn group(&mut self, address_type: &'static str, ports: Vec<EndpointPort>) -> &mut Group {
        self.0.entry((address_type.to_owned(), ports_key(&ports))).or_insert_with(|| Group {
            address_type,
            ports,
            endpoints: Vec::new(),
        })
    }

    pub(crate) fn has_type(&self, address_type: &str) -> bool {
        self.0.keys().any(|(own, _)| own == address_type)
    }

    pub(crate) fn into_vec(self) -> Vec<Group> {
        self.0.into_values().collect()
    }
}

fn ports_key(ports: &[EndpointPort]) -> String {
    let mut keys: Vec<_> = ports.iter().map(|port| canonical(port).to_string()).collect();
    keys.sort();
    keys.join(";")
}

/// What makes an endpoint the same one after a change.
fn identity(endpoint: &Endpoint) -> (Vec<String>, String) {
    let target = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.clone(), target.unwrap_or_default())
}

struct Filled {
    slice: EndpointSlice,
    is_changed: bool,
}

impl Filled {
    fn len(&self) -> usize {
        self.slice.endpoints.as_ref().map_or(0, Vec::len)
    }

    fn take(&mut self, endpoints: impl IntoIterator<Item = Endpoint>) {
        self.slice.endpoints.get_or_insert_default().extend(endpoints);
        self.is_changed = true;
    }
}

/// Spreads `groups` over slices of at most `len_max` endpoints. `meta` is the metadata every slice should have (labels,
/// annotations, owner; its `generate_name` names new ones).
pub(crate) fn pack(
    existing: Vec<EndpointSlice>,
    groups: Vec<Group>,
    meta: &ObjectMeta,
    len_max: usize,
) -> Writes {
    let mut by_key: HashMap<(String, String), Vec<EndpointSlice>> = HashMap::new();
    for slice in existing {
        let key = (slice.address_type.clone(), ports_key(slice.ports.as_deref().unwrap_or_default()));
        by_key.entry(key).or_default().push(slice);
    }
    let mut writes = Writes::default();
    for group in groups {
        let key = (group.address_type.to_owned(), ports_key(&group.ports));
        let slices = by_key.remove(&key).unwrap_or_default();
        pack_group(slices, group, meta, len_max, &mut writes);
    }
    let mut unused: Vec<EndpointSlice> = by_key.into_values().flatten().collect();
    unused.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    reuse(unused, &mut writes);
    writes
}

/// Uses slices that are no longer needed for those that would be made: an update is cheaper than both.
fn reuse(unused: Vec<EndpointSlice>, writes: &mut Writes) {
    for slice in unused {
        let same_type = writes.create.iter().position(|made| made.address_type == slice.address_type);
        match same_type {
            Some(position) => {
                let made = writes.create.remove(position);
                let metadata = with_meta(&slice.metadata, &made.metadata);
                writes.update.push(EndpointSlice { metadata, ..made });
            }
            None => writes.delete.extend(slice.metadata.name),
        }
    }
}

/// The metadata of an existing slice with wanted labels, annotations and owner.
fn with_meta(existing: &ObjectMeta, wanted: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        labels: wanted.labels.clone(),
        annotations: wanted.annotations.clone().or_else(|| existing.annotations.clone()),
        owner_references: wanted.owner_references.clone(),
        ..existing.clone()
    }
}

fn pack_group(
    slices: Vec<EndpointSlice>,
    group: Group,
    meta: &ObjectMeta,
    len_max: usize,
    writes: &mut Writes,
) {
    let is_placeholder = group.endpoints.is_empty();
    let mut wanted: BTreeMap<_, Endpoint> =
        group.endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
    let mut filled: Vec<Filled> =
        slices.into_iter().map(|slice| keep_wanted(slice, &mut wanted, meta)).collect();
    let mut left: Vec<Endpoint> = wanted.into_values().collect();
    // What is changed anyway is filled first, the fullest first.
    filled.sort_by_key(|slice| (!slice.is_changed, std::cmp::Reverse(slice.len())));
    for slice in filled.iter_mut().filter(|slice| slice.is_changed) {
        let room = len_max.saturating_sub(slice.len()).min(left.len());
        if room > 0 {
            slice.take(left.drain(..room));
        }
    }
    // The rest goes into one more slice if one has room for all of it, rather than into a new one.
    let rest = left.len() % len_max;
    if rest > 0
        && let Some(slice) = filled
            .iter_mut()
            .filter(|slice| slice.len() > 0 && slice.len() + rest <= len_max)
            .max_by_key(|slice| slice.len())
    {
        slice.take(left.drain(..rest));
    }
    let new = |endpoints: Vec<Endpoint>| EndpointSlice {
        metadata: meta.clone(),
        address_type: group.address_type.to_owned(),
        ports: Some(group.ports.clone()),
        endpoints: Some(endpoints),
    };
    while !left.is_empty() {
        let size = left.len().min(len_max);
        writes.create.push(new(left.drain(..size).collect()));
    }
    if is_placeholder && filled.is_empty() {
        writes.create.push(new(Vec::new()));
    }
    let mut unused = Vec::new();
    for (position, slice) in filled.into_iter().enumerate() {
        let is_needed = slice.len() > 0 || (is_placeholder && position == 0);
        match (is_needed, slice.is_changed) {
            (true, true) => writes.update.push(slice.slice),
            (true, false) => {}
            (false, _) => unused.push(slice.slice),
        }
    }
    reuse(unused, writes);
}

/// Keeps what is wanted in a slice and takes it off the list.
fn keep_wanted(
    mut slice: EndpointSlice,
    wanted: &mut BTreeMap<(Vec<String>, String), Endpoint>,
    meta: &ObjectMeta,
) -> Filled {
    let metadata = with_meta(&slice.metadata, meta);
    let mut is_changed = metadata != slice.metadata;
    slice.metadata = metadata;
    let before = slice.endpoints.take().unwrap_or_default();
    let mut kept = Vec::with_capacity(before.len());
    for endpoint in before {
        match wanted.remove(&identity(&endpoint)) {
            Some(fresh) => {
                is_changed |= canonical(&fresh) != canonical(&endpoint);
                kept.push(fresh);
            }
            None => is_changed = true,
        }
    }
    slice.endpoints = Some(kept);
    Filled { slice, is_changed }
}
