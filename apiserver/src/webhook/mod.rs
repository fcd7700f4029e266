//! Admission webhooks: servers that are asked while a request is handled. Upstream: apiserver
//! `pkg/admission/plugin/webhook`.
//!
//! Flow: the configurations of the cluster → the webhooks whose rules and selectors match → a review each, mutating ones
//! one after another, validating ones all at once → a refusal, a patch, warnings.

mod client;
mod hook;
mod review;

use crate::hooks::AdmissionStep;
use crate::registry::Entry;
use crate::server::Server;
use api::decode::{FieldValidation, Target};
use api::patch::PatchKind;
use api::{AdmissionRequest, Lookup, Operation, Status};
use base64::Engine as _;
pub(crate) use client::Webhooks;
use futures::future::BoxFuture;
use hook::{Asked, Hook};
use parking_lot::Mutex;
use review::Answer;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock, Weak};

const GROUP: &str = "admissionregistration.k8s.io";

/// The certificates of a `caBundle`.
pub(crate) fn certificates(bundle: &str) -> Vec<CertificateDer<'static>> {
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default();
    CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect()
}

/// Whether a `caBundle` holds certificates, or nothing.
pub(crate) fn is_bundle(bundle: &str) -> bool {
    bundle.is_empty() || !certificates(bundle).is_empty()
}

/// The step of one kind of webhooks.
pub(crate) struct Step {
    is_mutating: bool,
    webhooks: Arc<Webhooks>,
    /// The server, once it is built: for the other versions of what a request is about.
    server: OnceLock<Weak<Server>>,
    kept: Mutex<Option<(u64, Arc<Vec<Hook>>)>>,
}

/// Why a request does not go on.
enum Failure {
    /// The webhook could not be asked, or gave no sense.
    Call(String),
    /// The request is refused.
    Refused(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// A request in the version that a webhook understands.
struct View {
    /// The row that shows it so; `None` for the request's own.
    entry: Option<Entry>,
    object: Value,
    old: Option<Value>,
}

impl Step {
    pub(crate) fn new(is_mutating: bool, webhooks: Arc<Webhooks>) -> Self {
        Self { is_mutating, webhooks, server: OnceLock::new(), kept: Mutex::default() }
    }

    /// Where other versions are found. Called once, when the server is built.
    pub(crate) fn attach(&self, server: &Arc<Server>) {
        let _ = self.server.set(Arc::downgrade(server));
    }

    /// All webhooks of the cluster, by configuration.
    fn hooks(&self, lookup: &dyn Lookup) -> Arc<Vec<Hook>> {
        let plural = if self.is_mutating {
            "mutatingwebhookconfigurations"
        } else {
            "validatingwebhookconfigurations"
        };
        let changes = lookup.changes(GROUP, plural);
        let mut kept = self.kept.lock();
        if let Some((at, hooks)) = kept.as_ref().filter(|(at, _)| *at == changes) {
            debug_assert_eq!(*at, changes);
            return hooks.clone();
        }
        let list = lookup.list(GROUP, plural, "");
        let hooks =
            list.iter().filter_map(|own| own.decode::<Value>().ok()).flat_map(|own| hook::hooks(&own));
        let hooks: Arc<Vec<Hook>> = Arc::new(hooks.collect());
        *kept = Some((changes, hooks.clone()));
        hooks
    }

    /// The request's row and the other rows that show the same objects.
    fn entries(&self, request: &AdmissionRequest<'_>) -> Vec<Entry> {
        let Some(server) = self.server.get().and_then(Weak::upgrade) else { return Vec::new() };
        let table = server.registry().table();
        let row = request.resource;
        let Some(own) = table.find(&row.group, &row.version, &row.plural) else { return Vec::new() };
        let same = |other: &&Entry| {
            let (home, other_home) = (&own.cache, &other.cache);
            let same_cache =
                home.as_ref().zip(other_home.as_ref()).is_some_and(|(one, two)| Arc::ptr_eq(one, two));
            same_cache && !Arc::ptr_eq(&own.resource, &other.resource)
        };
        std::iter::once(own).chain(table.entries().filter(same)).cloned().collect()
    }

    /// The resource in which a webhook wants to hear of the request, if it does.
    fn wanted<'e>(
        hook: &Hook,
        request: &AdmissionRequest<'_>,
        entries: &'e [Entry],
    ) -> Result<Option<(usize, Asked<'e>)>, Status> {
        let asked: Vec<Asked<'e>> = entries
            .iter()
            .map(|entry| Asked {
                group: &entry.resource.group,
                version: &entry.resource.version,
                plural: &entry.resource.plural,
            })
            .collect();
        if !hook.selects_object(request) {
            return Ok(None);
        }
        let Some(found) = hook.matched(request, &asked) else { return Ok(None) };
        if !hook.selects_namespace(request)? {
            return Ok(None);
        }
        let index = asked.iter().position(|own| *own == found).unwrap_or(0);
        Ok(Some((index, found)))
    }

    /// The request as the row of this index shows it.
    async fn view(request: &AdmissionRequest<'_>, entries: &[Entry], index: usize) -> Result<View, Status> {
        let old = request.old.cloned();
        let object = request.object.clone();
        let is_whole = matches!(request.subresource, "" | "status");
        let (Some(own), Some(other)) =
            (entries.first(), entries.get(index).filter(|_| index > 0 && is_whole))
        else {
            return Ok(View { entry: None, object, old });
        };
        let translate = async |value: Value| match value.is_null() {
            true => Ok(value),
            false => own.translate(value, other).await,
        };
        let old = match old {
            Some(old) => Some(translate(old).await?),
            None => None,
        };
        Ok(View { entry: Some(other.clone()), object: translate(object).await?, old })
    }

    /// Asks one webhook.
    async fn ask(
        &self,
        hook: &Hook,
        request: &AdmissionRequest<'_>,
        asked: Asked<'_>,
        view: &View,
    ) -> Result<Answer, Failure> {
        if request.dry_run && !hook.may_dry_run {
            let why = format!(
                "admission webhook {:?} does not support dry run because the webhook has side effects",
                hook.name
            );
            return Err(Status::bad_request(why).into());
        }
        let call = |text: String| Failure::Call(format!("failed calling webhook {:?}: {text}", hook.name));
        if !hook.speaks_v1 {
            return Err(call("could not create admission objects: webhook does not accept known AdmissionReview versions (v1)".to_owned()));
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let kind = match &view.entry {
            Some(entry) => (&*entry.resource.group, &*entry.resource.version, &*entry.resource.kind),
            None => request.kind,
        };
        let question = review::question(&uid, request, asked, kind, &view.object, view.old.as_ref());
        let answer = self.webhooks.call(request.lookup, &hook.client, &question, hook.timeout, true).await;
        let answer = answer.map_err(|error| call(format!("failed to call webhook: {error}")))?;
        review::answer(&hook.name, &uid, &answer, self.is_mutating)
            .map_err(|text| call(format!("received invalid webhook response: {text}")))
    }

    async fn dispatch_mutating(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let hooks = self.hooks(request.lookup);
        if hooks.is_empty() || hook::is_exempt(request) {
            return Ok(());
        }
        let entries = self.entries(request);
        let is_again = request.reinvocation.is_again;
        if is_again && request.reinvocation.last.as_ref() != Some(&request.object) {
            request.reinvocation.changed();
        }
        for (index, hook) in hooks.iter().enumerate() {
            let Some((at, asked)) = Self::wanted(hook, request, &entries)? else { continue };
            if is_again && !request.reinvocation.due.contains(&hook.id) {
                continue;
            }
            let place = format!("round_{}_index_{index}", u8::from(is_again));
            match self.mutate_by(hook, request, &entries, at, asked, &place).await {
                Ok(true) => {
                    request.reinvocation.changed();
                    request.reinvocation.is_wanted = true;
                }
                Ok(false) => {}
                Err(Failure::Refused(status)) => return Err(status),
                Err(Failure::Call(text)) if hook.ignores_failure => {
                    tracing::warn!(text, "a webhook failed; the request goes on");
                    let key = format!("failed-open.mutation.webhook.admission.k8s.io/{place}");
                    request.annotations.insert(key, hook.name.clone());
                }
                Err(Failure::Call(text)) => return Err(Status::internal(text)),
            }
            if hook.again {
                request.reinvocation.asked.insert(hook.id.clone());
            }
        }
        request.reinvocation.last = Some(request.object.clone());
        Ok(())
    }

    /// Asks one webhook and applies its patch. Whether the object changed.
    async fn mutate_by(
        &self,
        hook: &Hook,
        request: &mut AdmissionRequest<'_>,
        entries: &[Entry],
        at: usize,
        asked: Asked<'_>,
        place: &str,
    ) -> Result<bool, Failure> {
        let view = Self::view(request, entries, at).await?;
        let result = self.ask(hook, request, asked, &view).await;
        let mut changed = false;
        let outcome = match result {
            Ok(answer) => {
                request.warnings.extend(answer.warnings);
                request.annotations.extend(answer.annotations);
                match (answer.denied, answer.patch) {
                    (Some(status), _) => Err(status.into()),
                    (None, None) => Ok(()),
                    (None, Some(patch)) => {
                        let patched = Self::patched(hook, request, entries, &view, &patch).await;
                        patched.map(|object| {
                            changed = object != request.object;
                            request.object = object;
                            let text = json!({"configuration": hook.configuration, "webhook": hook.name, "patch": serde_json::from_slice::<Value>(&patch).unwrap_or_default(), "patchType": "JSONPatch"});
                            let key = format!("patch.webhook.admission.k8s.io/{place}");
                            request.annotations.insert(key, text.to_string());
                        })
                    }
                }
            }
            Err(failure) => Err(failure),
        };
        let text = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
        request.annotations.insert(format!("mutation.webhook.admission.k8s.io/{place}"), text.to_string());
        outcome.map(|()| changed)
    }

    /// The request's object with a webhook's patch.
    async fn patched(
        hook: &Hook,
        request: &AdmissionRequest<'_>,
        entries: &[Entry],
        view: &View,
        patch: &[u8],
    ) -> Result<Value, Failure> {
        if serde_json::from_slice::<Value>(patch).is_ok_and(|own| own.as_array().is_some_and(Vec::is_empty)) {
            return Ok(request.object.clone());
        }
        if view.object.is_null() {
            let why = format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            );
            return Err(Status::internal(why).into());
        }
        let own = |name: &str| view.object[name].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (own("apiVersion"), own("kind"));
        let target = Target::new(&api_version, &kind);
        let patched = api::patch::apply(PatchKind::Json, &view.object, patch, target);
        let patched = patched.map_err(|status| Status::internal(status.message))?;
        let (mut object, _) = patched.check(FieldValidation::Ignore)?;
        let row = view.entry.as_ref().map_or(request.resource, |entry| &*entry.resource);
        if matches!(request.subresource, "" | "status") {
            row.strategy.prune(&mut object);
            row.strategy.default(&mut object)?;
        }
        match (&view.entry, entries.first()) {
            (Some(entry), Some(own)) => Ok(entry.translate(object, own).await?),
            _ => Ok(object),
        }
    }

    async fn dispatch_validating(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let hooks = self.hooks(request.lookup);
        if hooks.is_empty() || hook::is_exempt(request) {
            return Ok(());
        }
        let entries = self.entries(request);
        let mut wanted = Vec::new();
        for hook in hooks.iter() {
            if let Some((at, asked)) = Self::wanted(hook, request, &entries)? {
                wanted.push((hook, asked, Self::view(request, &entries, at).await?));
            }
        }
        let shared = &*request;
        let calls = wanted.iter().map(|(hook, asked, view)| self.ask(hook, shared, *asked, view));
        let answers = futures::future::join_all(calls).await;
        let mut refusal = None;
        for (index, ((hook, ..), answer)) in wanted.iter().zip(answers).enumerate() {
            let refused = match answer {
                Ok(answer) => {
                    request.warnings.extend(answer.warnings);
                    request.annotations.extend(answer.annotations);
                    answer.denied
                }
                Err(Failure::Refused(status)) => Some(status),
                Err(Failure::Call(text)) if hook.ignores_failure => {
                    tracing::warn!(text, "a webhook failed; the request goes on");
                    let key =
                        format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                    request.annotations.insert(key, hook.name.clone());
                    None
                }
                Err(Failure::Call(text)) => Some(Status::internal(text)),
            };
            refusal = refusal.or(refused);
        }
        refusal.map_or(Ok(()), Err)
    }
}

impl AdmissionStep for Step {
    fn name(&self) -> &'static str {
        if self.is_mutating { "MutatingAdmissionWebhook" } else { "ValidatingAdmissionWebhook" }
    }

    fn handles(&self, _: Operation) -> bool {
        true
    }

    fn mutate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        match self.is_mutating {
            true => Box::pin(self.dispatch_mutating(request)),
            false => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        match self.is_mutating {
            true => Box::pin(std::future::ready(Ok(()))),
            false => Box::pin(self.dispatch_validating(request)),
        }
    }
}
