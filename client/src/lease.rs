//! Electing one of several instances. Upstream: client-go `tools/leaderelection`, with its times.

use crate::backoff::random_fraction;
use crate::client::Client;
use crate::clock::Clock;
use api::Status;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The times of an election. `Default` is upstream's for the control plane.
#[derive(Clone, Copy, Debug)]
pub struct ElectionTimes {
    /// How long others wait after the last renewal they saw before they take over.
    pub lease: Duration,
    /// After this time without a renewal the leader gives up. Shorter than `lease`.
    pub renew: Duration,
    /// Between two tries.
    pub retry: Duration,
}

impl Default for ElectionTimes {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// One candidate of an election that is held with a Lease object.
///
/// # Guarantees
/// At most one candidate leads at a time, as long as clocks run equally fast: a lease is taken over only after it was seen
/// unchanged for its whole duration, by the own clock; a leader that cannot renew stops before that.
///
/// # Assumptions
/// Work stops soon after its token is cancelled.
pub struct Election {
    client: Client,
    clock: Clock,
    namespace: String,
    name: String,
    identity: String,
    times: ElectionTimes,
    /// What was seen last, and when it was seen first.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    /// A candidate. `identity` must differ between instances.
    pub fn new(client: Client, clock: Clock, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            client,
            clock,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            times: ElectionTimes::default(),
            seen: None,
        }
    }

    /// With other times.
    pub fn with_times(mut self, times: ElectionTimes) -> Self {
        self.times = times;
        self
    }

    /// Waits until this candidate leads, then runs `work` with a token that is cancelled when leadership is lost or
    /// `shutdown` is. Returns when `work` has ended; the lease is then given back. Returns at once on `shutdown` before that.
    pub async fn lead<F>(mut self, shutdown: CancellationToken, work: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()>,
    {
        loop {
            match self.try_hold().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(status) => tracing::debug!(%status, lease = self.name, "the lease cannot be taken"),
            }
            tokio::select! {
                () = tokio::time::sleep(self.times.retry.mul_f64(1.0 + 1.2 * random_fraction())) => {}
                () = shutdown.cancelled() => return,
            }
        }
        tracing::info!(lease = self.name, identity = self.identity, "leading");
        let leading = shutdown.child_token();
        let work = work(leading.clone());
        tokio::pin!(work);
        tokio::select! {
            () = self.renew_until_lost() => {
                tracing::warn!("leadership is lost");
                leading.cancel();
                work.await;
                return;
            }
            () = &mut work => {}
        }
        self.give_back().await;
    }

    async fn renew_until_lost(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.times.retry).await;
            let left = self.times.renew.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_hold()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(status)) => tracing::debug!(%status, "the lease cannot be renewed"),
            }
            if renewed.elapsed() >= self.times.renew {
                return;
            }
        }
    }

    /// Takes or renews the lease; `false` if somebody else holds it.
    async fn try_hold(&mut self) -> Result<bool, Status> {
        let api = self.client.namespaced::<Lease>(&self.namespace);
        let now = MicroTime(self.clock.now());
        let mut spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.times.lease.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let created = api.create(&Lease { metadata, spec: Some(spec) }).await?;
            self.seen = created.spec.map(|spec| (spec, Instant::now()));
            return Ok(true);
        };
        let current = lease.spec.take().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != current) {
            self.seen = Some((current.clone(), Instant::now()));
        }
        let holder = current.holder_identity.as_deref().unwrap_or_default();
        let transitions = current.lease_transitions.unwrap_or(0);
        if holder == self.identity {
            spec.acquire_time = current.acquire_time.clone();
            spec.lease_transitions = Some(transitions);
        } else {
            let duration = Duration::from_secs(current.lease_duration_seconds.unwrap_or(0).max(0) as u64);
            let is_held = self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() < duration);
            if !holder.is_empty() && is_held {
                return Ok(false);
            }
            spec.lease_transitions = Some(transitions + 1);
        }
        lease.spec = Some(spec);
        match api.replace(&lease).await {
            Ok(lease) => {
                self.seen = lease.spec.map(|spec| (spec, Instant::now()));
                Ok(true)
            }
            // Somebody was faster; who it was is seen at the next try.
            Err(status) if status.is_conflict() && holder != self.identity => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Lets the next candidate lead at once.
    async fn give_back(&self) {
        let api = self.client.namespaced::<Lease>(&self.namespace);
        let Ok(Some(mut lease)) = api.get_opt(&self.name).await else { return };
        let Some(spec) = &mut lease.spec else { return };
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        if let Err(status) = api.replace(&lease).await {
            tracing::debug!(%status, lease = self.name, "the lease cannot be given back");
        }
    }
}
