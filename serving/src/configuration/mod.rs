//! Configurations: a revision for each generation. Upstream: `pkg/reconciler/configuration/configuration.go`.

mod plan;

use crate::conditions::Conditions;
use crate::keys;
use crate::kinds::{Configuration, Revision, label, name_of, namespace_of};
use crate::write;
use api::{Object, ObjectName};
use client::{Context, Controller, Error, Next};
use plan::Latest;
use std::sync::Arc;

/// The index of revisions by the configuration that made them, after the namespace.
const BY_CONFIGURATION: &str = "configuration";

/// The revisions of a configuration, as they are kept.
pub(crate) fn revisions_of(context: &Context, namespace: &str, configuration: &str) -> Vec<Arc<Object>> {
    let revisions = context.caches.of::<Revision>();
    revisions.index(BY_CONFIGURATION, |own| {
        let name = own.meta.label(keys::CONFIGURATION);
        name.map(|name| format!("{}/{name}", own.meta.namespace()).into()).into_iter().collect()
    });
    revisions.by(BY_CONFIGURATION, &format!("{namespace}/{configuration}"))
}

pub(crate) fn controller() -> Controller {
    Controller::of::<Configuration>("configuration-controller").owns::<Revision>().reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let found = context.caches.of::<Configuration>().read(&key.namespace, &key.name);
    write::observe(&context, found, &[], async |configuration, conditions| {
        sync(configuration, conditions, &context).await
    })
    .await?;
    Ok(Next::Done)
}

async fn sync(
    configuration: &Configuration,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<(), Error> {
    let about = write::about(configuration);
    let name = name_of(&configuration.metadata);
    let namespace = namespace_of(&configuration.metadata);
    let own = revisions_of(context, namespace, name);
    let mut all: Vec<Revision> = own.iter().filter_map(|own| own.decode().ok()).collect();
    // A name that was given may be another configuration's revision.
    let given = crate::kinds::text(&configuration.spec, "/template/metadata/name");
    if !own.iter().any(|own| own.meta.name() == given) {
        all.extend(context.caches.of::<Revision>().read(namespace, given));
    }
    let created = match plan::latest(configuration, &all) {
        Latest::There(own) => own.clone(),
        Latest::Taken => {
            let message = format!(
                "Revision creation failed with message: revisions.serving.knative.dev {given:?} already exists."
            );
            conditions.mark("Ready", "False", "RevisionFailed", &message);
            return Ok(());
        }
        Latest::Missing => {
            match write::create(context, &plan::revision(configuration, context.now())).await {
                Ok(Some(made)) => {
                    let message = format!("Created Revision {:?}", name_of(&made.metadata));
                    context.events.normal(&about, "Created", message);
                    made
                }
                Ok(None) => return Ok(()),
                Err(status) => {
                    let message = format!("Failed to create Revision: {}", status.message);
                    context.events.warning(&about, "CreationFailed", message);
                    let message = format!("Revision creation failed with message: {}.", status.message);
                    conditions.mark("Ready", "False", "RevisionFailed", &message);
                    return Err(status.into());
                }
            }
        }
    };
    all.retain(|own| label(&own.metadata, keys::CONFIGURATION) == name);
    for note in plan::observe(conditions, &created, &all) {
        match note.is_warning {
            true => context.events.warning(&about, note.reason, note.message),
            false => context.events.normal(&about, note.reason, note.message),
        }
    }
    Ok(())
}
