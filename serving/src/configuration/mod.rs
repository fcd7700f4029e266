//! Configurations: a revision for each generation. Upstream: `pkg/reconciler/configuration/configuration.go`.

mod plan;

use crate::conditions::Conditions;
use crate::keys;
use crate::kinds::{Configuration, Revision, label, name_of};
use crate::write;
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use plan::Latest;
use std::sync::Arc;

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
    let all = context
        .caches
        .of::<Revision>()
        .read_all(configuration.metadata.namespace.as_deref().unwrap_or_default());
    let created = match plan::latest(configuration, &all) {
        Latest::There(own) => own.clone(),
        Latest::Taken => {
            let taken = crate::kinds::text(&configuration.spec, "/template/metadata/name");
            let message = format!(
                "Revision creation failed with message: revisions.serving.knative.dev {taken:?} already exists."
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
    let own: Vec<Revision> =
        all.into_iter().filter(|own| label(&own.metadata, keys::CONFIGURATION) == name).collect();
    for note in plan::observe(conditions, &created, &own) {
        match note.is_warning {
            true => context.events.warning(&about, note.reason, note.message),
            false => context.events.normal(&about, note.reason, note.message),
        }
    }
    Ok(())
}
