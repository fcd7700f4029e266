//! Services: a configuration and a route each. Upstream: `pkg/reconciler/service/service.go`.

mod plan;

use crate::conditions::Conditions;
use crate::kinds::{Configuration, Revision, Route, Service, is_controlled_by, name_of, namespace_of, text};
use crate::write;
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use std::sync::Arc;

pub(crate) fn controller() -> Controller {
    Controller::of::<Service>("service-controller")
        .owns::<Configuration>()
        .owns::<Route>()
        .reads::<Revision>()
        .reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let found = context.caches.of::<Service>().read(&key.namespace, &key.name);
    write::observe(&context, found, plan::CONDITIONS, async |service, conditions| {
        sync(service, conditions, &context).await
    })
    .await?;
    Ok(Next::Done)
}

async fn sync(service: &Service, conditions: &mut Conditions<'_>, context: &Context) -> Result<(), Error> {
    let name = name_of(&service.metadata);
    let Some(configuration) = configuration(service, conditions, context).await? else { return Ok(()) };
    if !plan::take_configuration(conditions, &configuration) {
        return Ok(());
    }
    let wanted = text(&configuration.spec, "/template/metadata/name");
    let namespace = namespace_of(&service.metadata);
    let taken = context.caches.of::<Revision>().read(namespace, wanted);
    if taken.is_some_and(|own| !is_controlled_by(&own.metadata, &configuration.metadata)) {
        let message = format!(
            "The revision name {wanted:?} is taken by a conflicting Revision, so traffic will not be migrated"
        );
        conditions.mark("RoutesReady", "False", "RevisionNameTaken", &message);
        return Ok(());
    }
    let want = plan::route(service);
    let (api, about) = (context.client.namespaced::<Route>(namespace), write::about(service));
    match context.caches.of::<Route>().read(namespace, name) {
        None => match write::create(context, &want).await {
            Ok(Some(_)) => context.events.normal(&about, "Created", format!("Created Route {name:?}")),
            Ok(None) => {}
            Err(status) => {
                let message = format!("Failed to create Route {name:?}: {}", status.message);
                context.events.warning(&about, "CreationFailed", message);
                return Err(status.into());
            }
        },
        Some(own) if !is_controlled_by(&own.metadata, &service.metadata) => {
            let message = format!("There is an existing Route {name:?} that we do not own.");
            conditions.mark("RoutesReady", "False", "NotOwned", &message);
        }
        Some(mut own) => {
            if !plan::is_same((&want.spec, &own.spec), (&want.metadata, &own.metadata)) {
                own.spec = want.spec;
                own.metadata.labels = want.metadata.labels;
                own.metadata.annotations = want.metadata.annotations;
                own = api.replace(&own).await?;
            }
            plan::take_route(conditions, &own, &configuration);
        }
    }
    Ok(())
}

/// The configuration as it should be; `None` where it is not there yet, or somebody else's.
async fn configuration(
    service: &Service,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<Option<Configuration>, Error> {
    let (namespace, name) = (namespace_of(&service.metadata), name_of(&service.metadata));
    let found = context.caches.of::<Configuration>().read(namespace, name);
    let want = plan::configuration(service, found.as_ref());
    let about = write::about(service);
    match found {
        None => match write::create(context, &want).await {
            Ok(Some(made)) => {
                context.events.normal(&about, "Created", format!("Created Configuration {name:?}"));
                Ok(Some(made))
            }
            Ok(None) => Ok(None),
            Err(status) => {
                let message = format!("Failed to create Configuration {name:?}: {}", status.message);
                context.events.warning(&about, "CreationFailed", message);
                Err(status.into())
            }
        },
        Some(own) if !is_controlled_by(&own.metadata, &service.metadata) => {
            let message = format!("There is an existing Configuration {name:?} that we do not own.");
            conditions.mark("ConfigurationsReady", "False", "NotOwned", &message);
            Ok(None)
        }
        Some(own) if plan::is_same((&want.spec, &own.spec), (&want.metadata, &own.metadata)) => Ok(Some(own)),
        Some(mut own) => {
            own.spec = want.spec;
            own.metadata.labels = want.metadata.labels;
            own.metadata.annotations = want.metadata.annotations;
            Ok(Some(context.client.namespaced::<Configuration>(namespace).replace(&own).await?))
        }
    }
}
