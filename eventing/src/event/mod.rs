//! A CloudEvent as it is kept: its attributes, its data, and nothing of the request that brought it.
//!
//! Versions 1.0 and 0.3 are kept as they came. Source of the rules: the CloudEvents specification, the HTTP and JSON bindings, and
//! `cloudevents/sdk-go/v2/event`.

pub mod http;
pub mod json;
pub mod record;
mod text;

use bytes::Bytes;
use std::collections::BTreeMap;

/// The most bytes of an event's data, or of a request that brings events. Upstream has no bound; CloudEvents asks for at least 64 KB.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// The most attributes, extensions included.
pub const ATTRIBUTES_MAX: usize = 128;

/// The longest name of an attribute. CloudEvents recommends 20, nobody enforces it.
pub const NAME_BYTES_MAX: usize = 128;

/// The longest value of an attribute.
pub const VALUE_BYTES_MAX: usize = 16 << 10;

/// The version of the specification that an event follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecVersion {
    /// `0.3`.
    V03,
    /// `1.0`.
    V1,
}

impl SpecVersion {
    /// As attribute `specversion` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            SpecVersion::V03 => "0.3",
            SpecVersion::V1 => "1.0",
        }
    }

    /// Reads attribute `specversion`.
    pub fn parse(text: &str) -> Option<SpecVersion> {
        match text.trim() {
            "0.3" => Some(SpecVersion::V03),
            "1.0" => Some(SpecVersion::V1),
            _ => None,
        }
    }

    /// What this version calls the schema of the data.
    fn schema_name(self) -> &'static str {
        match self {
            SpecVersion::V03 => "schemaurl",
            SpecVersion::V1 => "dataschema",
        }
    }
}

/// What is wrong with an event or with the request that brings it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EventError {
    /// Neither headers nor content type say that this is an event.
    #[error("not a CloudEvent")]
    NotAnEvent,
    /// The version is unknown.
    #[error("unknown specversion {version:?}")]
    Version {
        /// As it came.
        version: String,
    },
    /// A required attribute is missing or empty.
    #[error("attribute {name} must not be empty")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// An attribute has a value that its type does not allow.
    #[error("attribute {name} is not {wanted}")]
    Value {
        /// Its name.
        name: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A name that no attribute may have.
    #[error("{name:?} is not the name of an attribute")]
    Name {
        /// As it came.
        name: String,
    },
    /// An attribute that came more than once.
    #[error("attribute {name} came twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// More than a bound allows.
    #[error("{what} is larger than {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The body is not the JSON that its content type promises.
    #[error("the body is not a JSON event: {message}")]
    Json {
        /// What the parser says.
        message: String,
    },
    /// Bytes of a log that this program did not write.
    #[error("unreadable record")]
    Record,
}

/// One CloudEvent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The version it came with.
    pub version: SpecVersion,
    /// `id`: with the source it names the event.
    pub id: String,
    /// `source`: a URI-reference.
    pub source: String,
    /// `type`.
    pub kind: String,
    /// `datacontenttype`.
    pub content_type: Option<String>,
    /// `dataschema`, or `schemaurl` in 0.3.
    pub schema: Option<String>,
    /// `subject`.
    pub subject: Option<String>,
    /// `time`, RFC 3339, as it came.
    pub time: Option<String>,
    /// Everything else, by lower-case name. Values are text, as HTTP headers have them.
    pub extensions: BTreeMap<String, String>,
    /// The data, decoded.
    pub data: Option<Bytes>,
    /// Whether the JSON form must carry the data as base64, because it came so.
    pub base64: bool,
}

impl Event {
    /// An event of version 1.0 without data.
    pub fn new(id: &str, source: &str, kind: &str) -> Event {
        Event {
            version: SpecVersion::V1,
            id: id.to_owned(),
            source: source.to_owned(),
            kind: kind.to_owned(),
            content_type: None,
            schema: None,
            subject: None,
            time: None,
            extensions: BTreeMap::new(),
            data: None,
            base64: false,
        }
    }

    /// An attribute or extension by its name; `None` where the event has none.
    ///
    /// Upstream: `eventfilter/attributes`, `LookupAttribute`, which also knows `schemaurl` and `datamediatype`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match name {
            "specversion" => Some(self.version.as_str()),
            "id" => Some(&self.id),
            "source" => Some(&self.source),
            "type" => Some(&self.kind),
            "subject" => self.subject.as_deref(),
            "time" => self.time.as_deref(),
            "dataschema" | "schemaurl" => self.schema.as_deref(),
            "datacontenttype" => self.content_type.as_deref(),
            "datamediatype" => {
                self.content_type.as_deref().map(|own| own.split(';').next().unwrap_or(own).trim())
            }
            _ => self.extensions.get(name).map(String::as_str),
        }
    }

    /// Sets an attribute or extension other than `specversion`.
    ///
    /// # Errors
    /// `Name` where nothing may have that name.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), EventError> {
        let name = name.to_ascii_lowercase();
        if value.len() > VALUE_BYTES_MAX {
            return Err(EventError::TooLarge { what: "an attribute", max: VALUE_BYTES_MAX });
        }
        match name.as_str() {
            "id" => self.id = value,
            "source" => self.source = value,
            "type" => self.kind = value,
            "subject" => self.subject = Some(value),
            "time" => self.time = Some(value),
            "datacontenttype" => self.content_type = Some(value),
            own if own == self.version.schema_name() => self.schema = Some(value),
            own if !text::is_name(own) => return Err(EventError::Name { name }),
            _ => {
                if self.extensions.len() >= ATTRIBUTES_MAX {
                    return Err(EventError::TooLarge {
                        what: "the number of attributes",
                        max: ATTRIBUTES_MAX,
                    });
                }
                self.extensions.insert(name, value);
            }
        }
        Ok(())
    }

    /// Checks what the SDK checks. Upstream: `event/eventcontext_v1.go` and `eventcontext_v03.go`, `Validate`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), EventError> {
        for (name, value) in [("id", &self.id), ("source", &self.source), ("type", &self.kind)] {
            if value.trim().is_empty() {
                return Err(EventError::Missing { name });
            }
        }
        let content_type = self.content_type.iter().map(|own| own.len());
        if self
            .attributes()
            .map(|(_, value)| value.len())
            .chain(content_type)
            .any(|own| own > VALUE_BYTES_MAX)
        {
            return Err(EventError::TooLarge { what: "an attribute", max: VALUE_BYTES_MAX });
        }
        let wrong = |name: &str, wanted| Err(EventError::Value { name: name.to_owned(), wanted });
        if !text::is_uri_reference(&self.source) {
            return wrong("source", "a URI-reference");
        }
        if self.subject.as_ref().is_some_and(|own| own.trim().is_empty()) {
            return Err(EventError::Missing { name: "subject" });
        }
        if self.content_type.as_ref().is_some_and(|own| !text::is_media_type(own)) {
            return wrong("datacontenttype", "a media type");
        }
        if self.schema.as_ref().is_some_and(|own| own.trim().is_empty() || !text::is_uri_reference(own)) {
            return wrong(self.version.schema_name(), "a URI");
        }
        if self.time.as_ref().is_some_and(|own| !text::is_time(own)) {
            return wrong("time", "an RFC 3339 time");
        }
        if self.data.as_ref().is_some_and(|own| own.len() > EVENT_BYTES_MAX) {
            return Err(EventError::TooLarge { what: "the data", max: EVENT_BYTES_MAX });
        }
        Ok(())
    }

    /// Every attribute besides `specversion` and `datacontenttype`, in the order in which it is written.
    fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let optional = [
            ("subject", self.subject.as_deref()),
            ("time", self.time.as_deref()),
            (self.version.schema_name(), self.schema.as_deref()),
        ];
        let required =
            [("id", self.id.as_str()), ("source", self.source.as_str()), ("type", self.kind.as_str())];
        required
            .into_iter()
            .chain(optional.into_iter().filter_map(|(name, value)| Some((name, value?))))
            .chain(self.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

#[cfg(test)]
mod tests;
