//! What to do next for a pod: spec and observation in, actions out. Pure; the worker carries them out.
//! Upstream: `pkg/kubelet/kuberuntime` `computePodActions`, `computeInitContainerActions`.

use crate::observed::{ContainerSeen, Observed, State};
use crate::probe::ProbeResults;
use crate::resources;
use crate::spec::{ContainerDef, Kind, PodDef};
use runtime::Limits;

/// A container to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Runtime id.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// Why, in upstream's words; part of the `Killing` event.
    pub message: String,
    /// Which probe asked for it, for its own grace period.
    pub probe: Option<crate::probe::ProbeKind>,
}

/// A container whose bounds change in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    /// Runtime id.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// What should hold.
    pub limits: Limits,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Stop everything that runs; nothing will run any more in this sandbox.
    pub stop_all: bool,
    /// Make a sandbox with this attempt number.
    pub create_sandbox: Option<u32>,
    /// Containers to start, in order.
    pub start: Vec<String>,
    /// Containers to stop.
    pub stop: Vec<Stop>,
    /// Containers whose bounds change.
    pub update: Vec<Update>,
}

/// Decides what to do next for a pod that is to run.
pub(crate) fn plan(def: &PodDef, observed: &Observed, probes: &ProbeResults) -> Plan {
    let mut plan = Plan::default();
    if let Some(attempt) = sandbox_needed(def, observed) {
        plan_new_sandbox(def, observed, attempt, &mut plan);
        return plan;
    }
    for container in def.of(&[Kind::Ephemeral]) {
        if observed.latest(container.name()).is_none() {
            plan.start.push(container.name().to_owned());
        }
    }
    let initialized = plan_init(def, observed, probes, &mut plan);
    if plan.stop_all || !initialized {
        return plan;
    }
    let mut kept = 0;
    let mut starting = 0;
    for container in def.regular() {
        match plan_regular(def, container, observed.latest(container.name()), probes, &mut plan) {
            Fate::Kept => kept += 1,
            Fate::Starting => starting += 1,
            Fate::Over => {}
        }
    }
    if kept == 0 && starting == 0 {
        plan.stop_all = true;
        plan.start.clear();
    }
    plan
}

/// The attempt number of the sandbox that has to be made, if one has to.
pub(crate) fn sandbox_needed(def: &PodDef, observed: &Observed) -> Option<u32> {
    let Some(sandbox) = &observed.sandbox else { return Some(0) };
    let addressed = def.host_network() || !sandbox.addresses.is_empty();
    let fits = sandbox.ready && sandbox.host_network == def.host_network() && addressed;
    (!fits).then_some(sandbox.attempt + 1)
}

fn plan_new_sandbox(def: &PodDef, observed: &Observed, attempt: u32, plan: &mut Plan) {
    plan.stop_all = observed.running().next().is_some();
    if def.restart_policy() == "Never" && attempt != 0 && !observed.containers.is_empty() {
        plan.stop_all = true;
        return;
    }
    let succeeded = |container: &ContainerDef| {
        observed.latest(container.name()).and_then(ContainerSeen::exit).is_some_and(|exit| exit.code == 0)
    };
    let to_start: Vec<&ContainerDef> = def
        .regular()
        .filter(|container| {
            let policy = container.spec.restart_policy.as_deref().unwrap_or(def.restart_policy());
            !(policy == "OnFailure" && succeeded(container))
        })
        .collect();
    let created = def.regular().any(|container| observed.latest(container.name()).is_some());
    if to_start.is_empty() && created {
        plan.stop_all = true;
        return;
    }
    plan.create_sandbox = Some(attempt);
    plan.start = match def.init().next() {
        Some(first) => vec![first.name().to_owned()],
        None => to_start.iter().map(|container| container.name().to_owned()).collect(),
    };
}

/// Walks the init containers backwards from the last one that is known. Answers whether the ordinary containers may run.
fn plan_init(def: &PodDef, observed: &Observed, probes: &ProbeResults, plan: &mut Plan) -> bool {
    let init: Vec<&ContainerDef> = def.init().collect();
    if init.is_empty() {
        return true;
    }
    let started_before = def.regular().any(|container| observed.active(container.name()).is_some());
    let mut initialized = started_before;
    let mut known = started_before;
    let mut start: Vec<usize> = Vec::new();
    for (index, container) in init.iter().enumerate().rev() {
        let sidecar = container.kind == Kind::Sidecar;
        let Some(seen) = observed.active(container.name()) else {
            if known && sidecar {
                start.push(index);
            }
            continue;
        };
        if known && !sidecar {
            continue;
        }
        let done = match &seen.state {
            State::Created => {
                start.push(index);
                false
            }
            State::Running if !sidecar => false,
            State::Running => plan_running_sidecar(def, container, index, seen, probes, plan, &mut start),
            State::Exited(_) if sidecar => {
                start.push(index);
                false
            }
            State::Exited(exit) if exit.code == 0 => true,
            State::Exited(exit) => {
                if !def.restarts_after(container, exit.code) {
                    plan.stop_all = true;
                    plan.start.clear();
                    return false;
                }
                start.push(index);
                false
            }
        };
        if done && index + 1 == init.len() {
            initialized = true;
        } else if done && !known {
            start.push(index + 1);
        }
        known = true;
    }
    if !known {
        start.push(0);
    }
    start.sort_unstable();
    start.dedup();
    plan.start.extend(start.into_iter().map(|index| init[index].name().to_owned()));
    initialized
}

/// Whether a running sidecar counts as started, so that what comes after it may start.
fn plan_running_sidecar(
    def: &PodDef,
    container: &ContainerDef,
    index: usize,
    seen: &ContainerSeen,
    probes: &ProbeResults,
    plan: &mut Plan,
    start: &mut Vec<usize>,
) -> bool {
    let name = container.name();
    let mut restart = |message: String, probe| {
        plan.stop.push(Stop { id: seen.id.clone(), name: name.to_owned(), message, probe });
        start.push(index);
    };
    if container.spec.startup_probe.is_some() {
        match probes.startup(&seen.id) {
            Some(true) => {}
            Some(false) => {
                restart(
                    format!("Init container {name} failed startup probe"),
                    Some(crate::probe::ProbeKind::Startup),
                );
                return false;
            }
            None => return false,
        }
    }
    if seen.hash != container.hash {
        restart(format!("Init container {name} definition changed"), None);
    } else if container.spec.liveness_probe.is_some() && probes.liveness(&seen.id) == Some(false) {
        restart(
            format!("Init container {name} failed liveness probe"),
            Some(crate::probe::ProbeKind::Liveness),
        );
    } else {
        resize(def, container, seen, plan);
    }
    true
}

enum Fate {
    Kept,
    Starting,
    Over,
}

fn plan_regular(
    def: &PodDef,
    container: &ContainerDef,
    seen: Option<&ContainerSeen>,
    probes: &ProbeResults,
    plan: &mut Plan,
) -> Fate {
    let name = container.name();
    let Some(seen) = seen.filter(|seen| seen.is_running()) else {
        if !def.should_start(container, seen) {
            return Fate::Over;
        }
        plan.start.push(name.to_owned());
        return Fate::Starting;
    };
    let mut restarts = def.restarts_when_killed(container);
    let (message, probe) = if seen.hash != container.hash {
        restarts = true;
        (format!("Container {name} definition changed"), None)
    } else if container.spec.liveness_probe.is_some() && probes.liveness(&seen.id) == Some(false) {
        (format!("Container {name} failed liveness probe"), Some(crate::probe::ProbeKind::Liveness))
    } else if container.spec.startup_probe.is_some() && probes.startup(&seen.id) == Some(false) {
        (format!("Container {name} failed startup probe"), Some(crate::probe::ProbeKind::Startup))
    } else if resize(def, container, seen, plan) {
        restarts = true;
        (format!("Container {name} resize requires restart"), None)
    } else {
        return Fate::Kept;
    };
    let message = if restarts { format!("{message}, will be restarted") } else { message };
    plan.stop.push(Stop { id: seen.id.clone(), name: name.to_owned(), message, probe });
    if !restarts {
        return Fate::Over;
    }
    plan.start.push(name.to_owned());
    Fate::Starting
}

/// Plans an in-place change of bounds. Answers whether the container must be made anew for it instead.
fn resize(def: &PodDef, container: &ContainerDef, seen: &ContainerSeen, plan: &mut Plan) -> bool {
    let wanted = resources::container_group(def, container);
    let differs = |resource: &str| match resource {
        "cpu" => {
            wanted.cpu_shares != seen.limits.cpu_shares || wanted.cpu_quota_us != seen.limits.cpu_quota_us
        }
        _ => wanted.memory_bytes != seen.limits.memory_bytes,
    };
    let policies = container.spec.resize_policy.as_deref().unwrap_or_default();
    let restart = policies
        .iter()
        .any(|policy| policy.restart_policy == "RestartContainer" && differs(&policy.resource_name));
    if restart {
        return true;
    }
    if differs("cpu") || differs("memory") {
        plan.update.push(Update { id: seen.id.clone(), name: seen.name.clone(), limits: wanted });
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::tests::{exited, ready, seen};
    use crate::spec::tests::pod;
    use serde_json::json;

    fn with_limits(def: &PodDef, mut one: ContainerSeen) -> ContainerSeen {
        one.limits = resources::container_group(def, def.container(&one.name).unwrap());
        one
    }

    #[derive(Debug, Default, PartialEq)]
    struct Expect {
        stop_all: bool,
        sandbox: Option<u32>,
        start: Vec<&'static str>,
        stop: Vec<&'static str>,
    }

    fn check(spec: serde_json::Value, sandbox: bool, containers: Vec<(&str, i32, State)>, expect: Expect) {
        let def = pod(json!({"spec": spec}));
        let mut observed = Observed { sandbox: sandbox.then(ready).flatten(), ..Default::default() };
        for (name, count, state) in containers {
            observed.put(with_limits(&def, seen(name, count, state)));
        }
        let mut probes = ProbeResults::default();
        for one in &observed.containers {
            probes.set(&one.id, crate::probe::ProbeKind::Liveness, one.name != "sick");
        }
        let plan = plan(&def, &observed, &probes);
        let found = Expect {
            stop_all: plan.stop_all,
            sandbox: plan.create_sandbox,
            start: plan.start.iter().map(|name| &*name.clone().leak()).collect(),
            stop: plan.stop.iter().map(|stop| &*stop.name.clone().leak()).collect(),
        };
        assert_eq!(found, expect, "{:?}", observed.containers);
    }

    fn two(policy: &str) -> serde_json::Value {
        json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]})
    }

    fn with_init(policy: &str) -> serde_json::Value {
        json!({"restartPolicy": policy, "initContainers": [{"name": "x", "image": "i"}, {"name": "y", "image": "i"}],
            "containers": [{"name": "a", "image": "i"}]})
    }

    fn with_sidecar() -> serde_json::Value {
        json!({"restartPolicy": "Always", "initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"},
            {"name": "y", "image": "i"}], "containers": [{"name": "a", "image": "i"}]})
    }

    #[test]
    fn a_new_pod_gets_a_sandbox_and_its_first_containers() {
        check(
            two("Always"),
            false,
            vec![],
            Expect { sandbox: Some(0), start: vec!["a", "b"], ..Default::default() },
        );
        check(
            with_init("Always"),
            false,
            vec![],
            Expect { sandbox: Some(0), start: vec!["x"], ..Default::default() },
        );
    }

    #[test]
    fn what_ended_starts_again_by_policy() {
        let run = State::Running;
        check(two("Always"), true, vec![("a", 0, run.clone()), ("b", 0, run.clone())], Expect::default());
        check(
            two("Always"),
            true,
            vec![("a", 0, run.clone()), ("b", 0, exited(0))],
            Expect { start: vec!["b"], ..Default::default() },
        );
        check(two("OnFailure"), true, vec![("a", 0, run.clone()), ("b", 0, exited(0))], Expect::default());
        check(
            two("OnFailure"),
            true,
            vec![("a", 0, run.clone()), ("b", 0, exited(1))],
            Expect { start: vec!["b"], ..Default::default() },
        );
        check(two("Never"), true, vec![("a", 0, run), ("b", 0, exited(1))], Expect::default());
        check(
            two("Never"),
            true,
            vec![("a", 0, exited(0)), ("b", 0, exited(1))],
            Expect { stop_all: true, ..Default::default() },
        );
    }

    #[test]
    fn init_containers_run_one_after_the_other() {
        check(with_init("Always"), true, vec![], Expect { start: vec!["x"], ..Default::default() });
        check(with_init("Always"), true, vec![("x", 0, State::Running)], Expect::default());
        check(
            with_init("Always"),
            true,
            vec![("x", 0, exited(0))],
            Expect { start: vec!["y"], ..Default::default() },
        );
        check(
            with_init("Always"),
            true,
            vec![("x", 0, exited(1))],
            Expect { start: vec!["x"], ..Default::default() },
        );
        check(
            with_init("Never"),
            true,
            vec![("x", 0, exited(1))],
            Expect { stop_all: true, ..Default::default() },
        );
        check(
            with_init("Always"),
            true,
            vec![("x", 0, exited(0)), ("y", 0, exited(0))],
            Expect { start: vec!["a"], ..Default::default() },
        );
        check(
            with_init("Always"),
            true,
            vec![("y", 0, exited(0))],
            Expect { start: vec!["a"], ..Default::default() },
        );
        check(with_init("Always"), true, vec![("a", 0, State::Running)], Expect::default());
    }

    #[test]
    fn sidecars_run_beside_the_others_and_are_kept_running() {
        check(with_sidecar(), true, vec![], Expect { start: vec!["s"], ..Default::default() });
        check(
            with_sidecar(),
            true,
            vec![("s", 0, State::Running)],
            Expect { start: vec!["y"], ..Default::default() },
        );
        check(
            with_sidecar(),
            true,
            vec![("s", 0, exited(1)), ("y", 0, exited(0))],
            Expect { start: vec!["s", "a"], ..Default::default() },
        );
        check(
            with_sidecar(),
            true,
            vec![("s", 0, exited(1)), ("a", 0, State::Running)],
            Expect { start: vec!["s"], ..Default::default() },
        );
    }

    #[test]
    fn failed_probes_and_new_images_stop_containers() {
        let sick = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "sick", "image": "i", "livenessProbe": {}}]});
        check(
            sick("Always"),
            true,
            vec![("sick", 0, State::Running)],
            Expect { start: vec!["sick"], stop: vec!["sick"], ..Default::default() },
        );
        check(
            sick("Never"),
            true,
            vec![("sick", 0, State::Running)],
            Expect { stop_all: true, stop: vec!["sick"], ..Default::default() },
        );
        let changed = json!({"containers": [{"name": "a", "image": "j"}]});
        check(
            changed,
            true,
            vec![("a", 0, State::Running)],
            Expect { start: vec!["a"], stop: vec!["a"], ..Default::default() },
        );
    }

    #[test]
    fn ephemeral_containers_start_once() {
        let spec = json!({"containers": [{"name": "a", "image": "i"}], "ephemeralContainers": [{"name": "e", "image": "i"}]});
        check(
            spec.clone(),
            true,
            vec![("a", 0, State::Running)],
            Expect { start: vec!["e"], ..Default::default() },
        );
        check(spec, true, vec![("a", 0, State::Running), ("e", 0, exited(1))], Expect::default());
    }

    #[test]
    fn bounds_change_in_place_unless_the_policy_says_restart() {
        let spec = |policy: &str, cpu: &str| {
            json!({"spec": {"containers": [{"name": "a", "image": "i",
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}], "resources": {"limits": {"cpu": cpu}}}]}})
        };
        for (policy, stops, updates) in [("NotRequired", 0, 1), ("RestartContainer", 1, 0)] {
            let old = pod(spec(policy, "1"));
            let mut observed = Observed { sandbox: ready(), ..Default::default() };
            observed.put(with_limits(&old, seen("a", 0, State::Running)));
            let plan = plan(&pod(spec(policy, "2")), &observed, &ProbeResults::default());
            assert_eq!((plan.stop.len(), plan.update.len()), (stops, updates), "{policy}");
        }
    }
}
