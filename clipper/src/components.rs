//! The loops of the control plane beside the API server: controllers and scheduler, each with a client of its own.

use crate::control_plane::ControlPlane;
use crate::pki::Pki;
use client::{Caches, Client, Clock, Context, EventRecorder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What runs until it is stopped.
pub struct Components {
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Components {
    /// Starts all of them.
    pub fn start(control_plane: &ControlPlane, pki: &Pki) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        // The controllers share one set of caches; the scheduler reads the same kinds through its own identity.
        let client = control_plane.controllers();
        let shared = context(&client, "kube-controller-manager");
        let options = controllers::Options { root_ca: pki.ca_pem().to_owned() };
        let stopped = stop.clone();
        tasks.spawn(async move {
            controllers::run(&shared, &options, stopped).await;
            "controllers"
        });
        let client = control_plane.component("system:kube-scheduler");
        let own = context(&client, "default-scheduler");
        let stopped = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = scheduler::run(own.client, own.caches, own.events, own.clock, scheduler::Options::default()) => {}
                () = stopped.cancelled() => {}
            }
            "scheduler"
        });
        Self { tasks, stop }
    }

    /// Asks all to end and waits until they have.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(name) => tracing::debug!(name, "stopped"),
                Err(error) => tracing::error!(%error, "a component ended badly"),
            }
        }
    }
}

fn context(client: &Client, name: &str) -> Context {
    let clock = Clock::system();
    let events = EventRecorder::new(client.clone(), clock.clone(), name, "");
    Context::new(client.clone(), Caches::new(client.clone()), events, clock)
}
