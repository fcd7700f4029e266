//! Which resources a server serves.

use crate::client::Client;
use crate::dynamic::malformed;
use crate::resource::ResourceRef;
use api::Status;
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One resource of a server, in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// What it is.
    pub resource: ResourceRef,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What it serves.
    pub verbs: Vec<String>,
    /// Whether its version is the one that the server prefers.
    pub preferred: bool,
}

impl Discovered {
    /// Whether it serves all of these verbs.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|own| own == verb))
    }
}

/// What a server serves, and which groups could not be asked (an extension server that is down).
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// All resources without subresources.
    pub resources: Vec<Discovered>,
    /// Groups and versions whose resources are not known now.
    pub failed: Vec<String>,
}

impl Client {
    /// Which resources the server serves, in all versions.
    ///
    /// # Errors
    /// The server cannot be reached. A single group that fails is told in the answer.
    pub async fn discover(&self) -> Result<Served, Status> {
        let mut served = Served::default();
        for path in ["/api", "/apis"] {
            let bytes = self.call(Method::GET, path, None, AGGREGATED, Bytes::new()).await?;
            let list: GroupList = parse(&bytes)?;
            if list.kind == "APIGroupDiscoveryList" {
                list.items.into_iter().for_each(|group| aggregated(group, &mut served));
            } else {
                self.discover_one_by_one(list, &mut served).await;
            }
        }
        Ok(served)
    }

    /// The older way: one request for each group and version.
    async fn discover_one_by_one(&self, list: GroupList, served: &mut Served) {
        let mut versions: Vec<(String, bool)> =
            list.versions.into_iter().map(|version| (version, true)).collect();
        for group in list.groups {
            let preferred = group.preferred_version.group_version;
            versions.extend(group.versions.into_iter().map(|version| {
                let is_preferred = version.group_version == preferred;
                (version.group_version, is_preferred)
            }));
        }
        for (version, preferred) in versions {
            let root = if version.contains('/') { "/apis" } else { "/api" };
            let path = format!("{root}/{version}");
            let answer = self.call(Method::GET, &path, None, "application/json", Bytes::new()).await;
            let Ok(list) = answer.and_then(|bytes| parse::<ResourceList>(&bytes)) else {
                served.failed.push(version);
                continue;
            };
            let (group, version) = version.split_once('/').unwrap_or(("", &version));
            for row in list.resources.into_iter().filter(|row| !row.name.contains('/')) {
                served.resources.push(Discovered {
                    resource: ResourceRef::new(group, version, &row.name, &row.kind),
                    namespaced: row.namespaced,
                    verbs: row.verbs,
                    preferred,
                });
            }
        }
    }
}

fn aggregated(group: Group, served: &mut Served) {
    let name = group.metadata.name;
    for (position, version) in group.versions.into_iter().enumerate() {
        if version.freshness == "Stale" {
            served.failed.push(format!("{name}/{}", version.version));
        }
        for row in version.resources {
            served.resources.push(Discovered {
                resource: ResourceRef::new(&name, &version.version, &row.resource, &row.response_kind.kind),
                namespaced: row.scope == "Namespaced",
                verbs: row.verbs,
                preferred: position == 0,
            });
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(bytes).map_err(|error| malformed(&error))
}

/// `APIGroupDiscoveryList`, `APIGroupList` or `APIVersions`.
#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
    #[serde(default)]
    groups: Vec<OldGroup>,
    #[serde(default)]
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Named,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Row>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    resource: String,
    #[serde(default)]
    response_kind: ResponseKind,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Default, Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldGroup {
    #[serde(default)]
    versions: Vec<OldVersion>,
    #[serde(default)]
    preferred_version: OldVersion,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldVersion {
    #[serde(default)]
    group_version: String,
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<OldRow>,
}

#[derive(Deserialize)]
struct OldRow {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}
