//! Containers: created, started, stopped, removed.

use super::link::CallError;
use super::record::{self, ContainerRecord};
use super::sandbox::{Sandbox, detached};
use super::{Engine, Shared, blocking, files, new_id, plan};
use crate::error::{Error, Result, What};
use crate::spec::{ContainerSpec, Limits, MountSource, Seccomp};
use crate::status::{ContainerState, ContainerStatus, Event, Exit, ExitReason, RunsAs};
use jiff::Timestamp;
use shim::{Answer, Call, Ended, Notice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a killed container may take to be gone: the kernel may have to write to a slow disk first.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// Exit code of a container of which nothing is known. Upstream: containerd's `unknownExitCode`.
const UNKNOWN_EXIT_CODE: i32 = 255;

/// A container.
pub(super) struct Container {
    pub(super) record: ContainerRecord,
    pub(super) directory: PathBuf,
    pub(super) stop_signal: i32,
    /// Those of the record, and updates since.
    pub(super) limits: parking_lot::Mutex<Limits>,
    pub(super) life: watch::Sender<Life>,
    /// Starting and removing take turns.
    turn: tokio::sync::Mutex<()>,
}

/// Where it is in its life.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) pid: Option<u32>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) exit: Option<Exit>,
    pub(super) runs_as: Option<RunsAs>,
}

impl Life {
    pub(super) fn state(&self) -> ContainerState {
        match (&self.exit, self.pid) {
            (Some(_), _) => ContainerState::Exited,
            (None, Some(_)) => ContainerState::Running,
            (None, None) => ContainerState::Created,
        }
    }

    /// The life of a container that has ended.
    pub(super) fn ended(ended: &Ended) -> Self {
        let reason = match ended {
            Ended { start_error: Some(_), .. } => ExitReason::StartError,
            Ended { out_of_memory: true, .. } => ExitReason::OOMKilled,
            Ended { exit_code: 0, .. } => ExitReason::Completed,
            Ended { exit_code: UNKNOWN_EXIT_CODE, finished_ns: 0, .. } => ExitReason::Unknown,
            _ => ExitReason::Error,
        };
        let message = ended.start_error.clone().unwrap_or_default();
        Self {
            pid: None,
            started_at: (ended.started_ns != 0).then(|| crate::clock::from_ns(ended.started_ns)),
            finished_at: Some(crate::clock::from_ns(ended.finished_ns)),
            exit: Some(Exit { code: ended.exit_code, reason, message }),
            runs_as: ended.runs_as.as_ref().map(runs_as),
        }
    }
}

fn runs_as(user: &shim::RunsAs) -> RunsAs {
    RunsAs { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
}

impl Container {
    pub(super) fn new(record: ContainerRecord, directory: PathBuf, life: Life) -> Self {
        let asked = record.spec.stop_signal.as_deref().or(record.image.config.stop_signal.as_deref());
        // Checked when it was created; an image's own may be anything, and then the usual one is sent.
        let stop_signal = asked.and_then(|name| plan::signal(name).ok()).unwrap_or(libc::SIGTERM);
        let limits = parking_lot::Mutex::new(record.spec.limits.clone());
        Self {
            record,
            directory,
            stop_signal,
            limits,
            life: watch::Sender::new(life),
            turn: Default::default(),
        }
    }

    pub(super) fn cgroup(&self, sandbox: &Sandbox) -> String {
        format!("{}/{}", sandbox.record.spec.cgroup.trim_end_matches('/'), self.record.id)
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let life = self.life.borrow().clone();
        let asked =
            self.record.spec.stop_signal.clone().or_else(|| self.record.image.config.stop_signal.clone());
        ContainerStatus {
            id: self.record.id.clone(),
            sandbox: self.record.sandbox.clone(),
            image_id: self.record.image.id.clone(),
            state: life.state(),
            created_at: self.record.created_at,
            started_at: life.started_at,
            finished_at: life.finished_at,
            exit: life.exit,
            pid: life.pid,
            runs_as: life.runs_as,
            spec: ContainerSpec { limits: self.limits.lock().clone(), ..self.record.spec.clone() },
            stop_signal: asked.unwrap_or_else(|| "SIGTERM".to_owned()),
            writable_layer: self.directory.join("upper"),
        }
    }

    pub(super) fn wrong_state(&self) -> Error {
        let state = self.life.borrow().state().to_string();
        Error::WrongState { what: What::Container, id: self.record.id.clone(), state }
    }

    /// Waits until it has ended.
    pub(super) async fn exited(&self) -> Exit {
        let mut life = self.life.subscribe();
        let ended = life.wait_for(|life| life.exit.is_some()).await;
        // The sender is ours, so waiting cannot fail.
        ended.ok().and_then(|life| life.exit.clone()).unwrap_or_else(|| unknown_exit(String::new()))
    }
}

fn unknown_exit(message: String) -> Exit {
    Exit { code: UNKNOWN_EXIT_CODE, reason: ExitReason::Unknown, message }
}

impl Shared {
    /// What of the machine the container needs: made where it is ours to make.
    fn prepare(&self, container: &Container, sandbox: &Sandbox) -> Result<plan::Host> {
        let spec = &container.record.spec;
        let cgroup = container.cgroup(sandbox);
        self.cgroups.create(&cgroup)?;
        self.cgroups.apply(&cgroup, &container.limits.lock())?;
        let mut devices = Vec::new();
        for device in &spec.devices {
            devices.push((
                files::device(&device.host_path, &device.container_path)?,
                device.permissions.clone(),
            ));
        }
        if !spec.privileged {
            self.cgroups.allow_devices(&cgroup, &plan::device_rules(&devices))?;
        }
        let mut device_files: Vec<_> = devices.into_iter().map(|(file, _)| file).collect();
        if spec.privileged {
            device_files.extend(files::all_devices());
        }
        if let Some(directory) = spec.log_path.as_deref().and_then(Path::parent) {
            std::fs::create_dir_all(directory).map_err(Error::io("making", directory))?;
        }
        let mut mounted_layers = Vec::new();
        for mount in &spec.mounts {
            mounted_layers.push(self.prepare_mount(container, &mount.source)?);
        }
        Ok(plan::Host {
            directory: container.directory.clone(),
            layers_directory: self.images.layers_directory(),
            layers: self.images.lower(&container.record.image),
            mounted_layers,
            shm: sandbox.shm(),
            cgroup: self.cgroups.for_shim(&cgroup)?,
            cgroup_mount: self.cgroups.filesystem(!spec.privileged),
            devices: device_files,
            seccomp: self.seccomp_filter(spec)?,
        })
    }

    /// Sources that do not exist are made as directories, as other runtimes do; images give their layers.
    fn prepare_mount(&self, container: &Container, source: &MountSource) -> Result<Option<Vec<String>>> {
        match source {
            MountSource::Path(path) => {
                if std::fs::symlink_metadata(path)
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
                {
                    std::fs::create_dir_all(path).map_err(Error::io("making the mount's source", path))?;
                }
                Ok(None)
            }
            MountSource::Image(reference) => {
                let image = self.images.find(reference);
                let image =
                    image.ok_or_else(|| Error::NotFound { what: What::Image, id: reference.clone() })?;
                let empty = container.directory.join("empty");
                std::fs::create_dir_all(&empty).map_err(Error::io("making", &empty))?;
                Ok(Some(self.images.lower(&image)))
            }
        }
    }

    /// The file with the compiled filter, made once for each profile and set of capabilities that it depends on.
    pub(super) fn seccomp_filter(&self, spec: &ContainerSpec) -> Result<Option<PathBuf>> {
        let capabilities = plan::capabilities(spec)?;
        let place = |name: String| self.directory.join("seccomp").join(name);
        let write = |place: &Path, program: Vec<u8>| -> Result<()> {
            let fresh = place.with_extension(new_id()?);
            std::fs::write(&fresh, program)
                .and_then(|()| std::fs::rename(&fresh, place))
                .map_err(Error::io("writing", place))
        };
        let place = match plan::seccomp(spec) {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::RuntimeDefault => {
                let place = place(format!("default-{}-{capabilities:x}", env!("CARGO_PKG_VERSION")));
                if !place.exists() {
                    write(&place, crate::seccomp::runtime_default(capabilities)?)?;
                }
                place
            }
            Seccomp::Localhost(path) => {
                let program = crate::seccomp::from_file(path, capabilities)?;
                let place = place(crate::image::digest_of(&program).replace(':', "-"));
                if !place.exists() {
                    write(&place, program)?;
                }
                place
            }
        };
        Ok(Some(place))
    }
}

impl Engine {
    pub(super) async fn make_container(&self, sandbox: &str, spec: ContainerSpec) -> Result<String> {
        let sandbox = self.shared.sandbox(sandbox)?;
        sandbox.link()?;
        if let Some(signal) = &spec.stop_signal {
            plan::signal(signal)?;
        }
        plan::capabilities(&spec)?;
        let image = self.shared.images.find(&spec.image);
        let image = image.ok_or_else(|| Error::NotFound { what: What::Image, id: spec.image.clone() })?;
        let id = new_id()?;
        let directory = self.shared.directory.join("containers").join(&id);
        let record = ContainerRecord {
            id: id.clone(),
            sandbox: sandbox.record.id.clone(),
            created_at: crate::clock::now(),
            spec,
            image,
        };
        // A command that cannot be is an error now, not at the start.
        plan::process(&record, &sandbox.record.spec, None)?;
        let container = Arc::new(Container::new(record, directory, Life::default()));
        let shared = self.shared.clone();
        blocking(move || {
            for name in ["upper", "work", "root"] {
                let path = container.directory.join(name);
                std::fs::create_dir_all(&path).map_err(Error::io("making", &path))?;
            }
            record::write(&container.directory.join("container.json"), &container.record)?;
            shared.containers.lock().insert(container.record.id.clone(), container);
            Ok(())
        })
        .await?;
        Ok(id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<()> {
        let container = self.shared.container(id)?;
        let engine = self.clone();
        detached(async move {
            let _turn = container.turn.lock().await;
            if container.life.borrow().state() != ContainerState::Created {
                return Err(container.wrong_state());
            }
            let sandbox = engine.shared.sandbox(&container.record.sandbox)?;
            let result = engine.start_in(&sandbox, &container).await;
            if let Err(Error::Start { message, exit_code }) = &result
                && container.life.borrow().exit.is_none()
            {
                engine.write_down(&container, *exit_code, message.clone());
            }
            result
        })
        .await
    }

    async fn start_in(&self, sandbox: &Arc<Sandbox>, container: &Arc<Container>) -> Result<()> {
        let failed = |error: Error| Error::Start { message: error.to_string(), exit_code: 128 };
        let link = sandbox.link()?;
        let (shared, preparing, inside) = (self.shared.clone(), container.clone(), sandbox.clone());
        let start = blocking(move || {
            let host = shared.prepare(&preparing, &inside)?;
            plan::start(&preparing.record, &inside.record.spec, host)
        });
        let start = start.await.map_err(failed)?;
        match link.call(Call::Start(Box::new(start)), Vec::new()).await {
            Ok(Answer::Started(_)) => Ok(()),
            Ok(other) => Err(failed(Error::Shim { message: format!("unexpected answer {other:?}") })),
            Err(CallError::Failed(failure)) => {
                let exit_code = if failure.exit_code == 0 { 128 } else { failure.exit_code };
                Err(Error::Start { message: failure.message, exit_code })
            }
            Err(error) => Err(sandbox.error(error)),
        }
    }

    /// Writes down an end that the shim did not see.
    fn write_down(&self, container: &Container, exit_code: i32, message: String) {
        let ended = Ended {
            container: container.record.id.clone(),
            exit_code,
            out_of_memory: false,
            start_error: Some(message),
            started_ns: 0,
            finished_ns: crate::clock::now().as_nanosecond() as i64,
            runs_as: None,
        };
        if let Err(error) = record::write(&container.directory.join(shim::EXIT_FILE), &ended) {
            tracing::warn!(container = container.record.id, %error, "an exit could not be written down");
        }
        self.end(container, Life::ended(&ended));
    }

    /// A shim told something.
    pub(super) fn hear(&self, sandbox: &str, notice: Notice) {
        match notice {
            Notice::Started(running) => {
                if let Ok(container) = self.shared.container(&running.container) {
                    self.begin(&container, &running);
                }
            }
            Notice::Ended(ended) => {
                if let Ok(container) = self.shared.container(&ended.container) {
                    self.end(&container, Life::ended(&ended));
                }
            }
            Notice::OutOfMemory { container } => {
                let at = crate::clock::now();
                self.shared.tell(Event::OutOfMemory { sandbox: sandbox.to_owned(), container, at });
            }
            Notice::ExecEnded { .. } => {} // the link's own
        }
    }

    /// Its program runs. Told once, however often it is heard.
    pub(super) fn begin(&self, container: &Container, running: &shim::Running) {
        let at = crate::clock::from_ns(running.started_ns);
        let fresh = container.life.send_if_modified(|life| {
            let fresh = life.state() == ContainerState::Created;
            if fresh {
                life.pid = u32::try_from(running.pid).ok();
                life.started_at = Some(at);
                life.runs_as = Some(runs_as(&running.runs_as));
            }
            fresh
        });
        if fresh {
            let (sandbox, container) = (container.record.sandbox.clone(), container.record.id.clone());
            self.shared.tell(Event::Started { sandbox, container, at });
        }
    }

    /// It has ended. Told once, however often it is heard.
    pub(super) fn end(&self, container: &Container, ended: Life) {
        let (exit, at) = (ended.exit.clone(), ended.finished_at.unwrap_or_default());
        let fresh = container.life.send_if_modified(|life| {
            let fresh = life.exit.is_none();
            if fresh {
                *life = ended;
            }
            fresh
        });
        if let (true, Some(exit)) = (fresh, exit) {
            let (sandbox, id) = (container.record.sandbox.clone(), container.record.id.clone());
            self.shared.tell(Event::Exited { sandbox, container: id, exit, at });
        }
    }

    /// The sandbox has no shim any more: what is known of its containers' ends is in their files, the rest is not known.
    pub(super) async fn lose_containers(&self, sandbox: &str) -> Result<()> {
        let containers = self.shared.containers_of(sandbox);
        let engine = self.clone();
        blocking(move || {
            for container in containers {
                if container.life.borrow().exit.is_some() {
                    continue;
                }
                let life = match record::read::<Ended>(&container.directory.join(shim::EXIT_FILE)) {
                    Some(ended) => Life::ended(&ended),
                    None => {
                        let life = container.life.borrow().clone();
                        let exit = Some(unknown_exit("the container's shim is gone".to_owned()));
                        Life { pid: None, finished_at: Some(crate::clock::now()), exit, ..life }
                    }
                };
                engine.end(&container, life);
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn kill(&self, container: &Container, signal: i32) -> Result<()> {
        if container.life.borrow().state() != ContainerState::Running {
            return Ok(());
        }
        let sandbox = self.shared.sandbox(&container.record.sandbox)?;
        let call =
            Call::Kill { container: container.record.id.clone(), signal, all: signal == libc::SIGKILL };
        match sandbox.link()?.call(call, Vec::new()).await {
            Ok(_) => Ok(()),
            // It has ended in between.
            Err(CallError::Failed(_)) if container.life.borrow().exit.is_some() => Ok(()),
            Err(error) => Err(sandbox.error(error)),
        }
    }

    pub(super) async fn stop_one(&self, id: &str, signal: Option<&str>, grace: Duration) -> Result<()> {
        let container = self.shared.container(id)?;
        let signal = signal.map(plan::signal).transpose()?.unwrap_or(container.stop_signal);
        if container.life.borrow().state() != ContainerState::Running {
            return Ok(());
        }
        if !grace.is_zero() {
            self.kill(&container, signal).await?;
            if tokio::time::timeout(grace, container.exited()).await.is_ok() {
                return Ok(());
            }
        }
        self.kill_for_good(&container).await
    }

    async fn kill_for_good(&self, container: &Container) -> Result<()> {
        self.kill(container, libc::SIGKILL).await?;
        match tokio::time::timeout(KILL_TIMEOUT, container.exited()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(crate::session::timed_out(KILL_TIMEOUT)),
        }
    }

    pub(super) async fn remove_container_by_id(&self, id: &str) -> Result<()> {
        let Ok(container) = self.shared.container(id) else { return Ok(()) };
        let engine = self.clone();
        detached(async move { engine.remove_one(&container).await }).await
    }

    pub(super) async fn remove_one(&self, container: &Arc<Container>) -> Result<()> {
        let _turn = container.turn.lock().await;
        if container.life.borrow().state() == ContainerState::Running {
            self.kill_for_good(container).await?;
        }
        let cgroup =
            self.shared.sandbox(&container.record.sandbox).map(|sandbox| container.cgroup(&sandbox)).ok();
        let (shared, removed) = (self.shared.clone(), container.clone());
        blocking(move || {
            if let Some(cgroup) = cgroup {
                shared.cgroups.remove(&cgroup)?;
            }
            files::remove_tree(&removed.directory)?;
            shared.containers.lock().remove(&removed.record.id);
            Ok(())
        })
        .await
    }

    pub(super) async fn update(&self, id: &str, limits: &Limits) -> Result<()> {
        let container = self.shared.container(id)?;
        let sandbox = self.shared.sandbox(&container.record.sandbox)?;
        let (engine, limits) = (self.clone(), limits.clone());
        blocking(move || {
            if container.life.borrow().state() == ContainerState::Running {
                engine.shared.cgroups.apply(&container.cgroup(&sandbox), &limits)?;
            }
            let merged = {
                let mut now = container.limits.lock();
                merge(&mut now, &limits);
                now.clone()
            };
            let spec = ContainerSpec { limits: merged, ..container.record.spec.clone() };
            record::write(
                &container.directory.join("container.json"),
                &ContainerRecord { spec, ..container.record.clone() },
            )
        })
        .await
    }
}

/// Takes over what is set.
pub(super) fn merge(now: &mut Limits, new: &Limits) {
    macro_rules! take {
        ($($field:ident),*) => {$(
            if new.$field.is_some() {
                now.$field = new.$field.clone();
            }
        )*};
    }
    take!(cpu_shares, cpu_quota_us, cpu_period_us, cpuset_cpus, cpuset_mems, memory_bytes, memory_swap_bytes);
    take!(memory_min_bytes, memory_high_bytes, oom_kill_group, pids);
    now.hugepages.extend(new.hugepages.clone());
}
