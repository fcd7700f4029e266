//! Why the runtime did not do it.

use std::path::PathBuf;

/// The result of runtime calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a not-found error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An image.
    Image,
    /// A sandbox.
    Sandbox,
    /// A container.
    Container,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            What::Image => "image",
            What::Sandbox => "sandbox",
            What::Container => "container",
        })
    }
}

/// Why the runtime did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such thing.
    #[error("{what} {id:?} not found")]
    NotFound {
        /// What kind of thing.
        what: What,
        /// The id or reference that was asked for.
        id: String,
    },
    /// The reference of an image is not one.
    #[error("invalid reference format: {reference:?}")]
    InvalidReference {
        /// What was given.
        reference: String,
    },
    /// The registry does not know the image.
    #[error("failed to resolve reference {reference:?}: {reference}: not found")]
    ImageUnknown {
        /// The normalised reference.
        reference: String,
    },
    /// The registry wants other credentials.
    #[error("failed to authorize {reference:?}: {message}")]
    Unauthorized {
        /// The normalised reference.
        reference: String,
        /// What the registry said.
        message: String,
    },
    /// The registry could not be reached and the image is not here.
    #[error("failed to reach the registry of {reference:?}: {message}")]
    RegistryUnavailable {
        /// The normalised reference.
        reference: String,
        /// What happened.
        message: String,
    },
    /// The registry answered with an error that is none of the above.
    #[error("failed to pull {reference:?}: {message}")]
    Registry {
        /// The normalised reference.
        reference: String,
        /// What happened.
        message: String,
    },
    /// An image or archive is damaged, hostile, or not for this machine.
    #[error("bad image {image:?}: {reason}")]
    BadImage {
        /// The file, reference or digest.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An image cannot be removed because containers use it.
    #[error("image {id:?} is in use by container {container:?}")]
    ImageInUse {
        /// The image.
        id: String,
        /// One of its containers.
        container: String,
    },
    /// A field of a spec makes no sense.
    #[error("invalid {field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The container or sandbox is not in the state that the call needs.
    #[error("{what} {id:?} is {state}")]
    WrongState {
        /// What kind of thing.
        what: What,
        /// Its id.
        id: String,
        /// The state it is in.
        state: String,
    },
    /// The container's program could not be started.
    #[error("failed to start container: {message}")]
    Start {
        /// Upstream's words, for example `exec: "nosuch": executable file not found in $PATH`.
        message: String,
        /// The exit code that the container then shows: 127 not found, 126 not executable, 128 anything else.
        exit_code: i32,
    },
    /// A program could not be run in a running container.
    #[error("failed to exec in container: {message}")]
    Exec {
        /// What happened.
        message: String,
        /// 127 not found, 126 not executable, 128 anything else.
        exit_code: i32,
    },
    /// The program did not end in time and was killed.
    #[error("timeout {seconds}s exceeded: context deadline exceeded")]
    Timeout {
        /// The time it had, in whole seconds.
        seconds: u64,
    },
    /// This engine or this machine cannot do it.
    #[error("not supported here: {feature}")]
    Unsupported {
        /// What was asked for.
        feature: String,
    },
    /// The process that holds the sandbox went away.
    #[error("the shim of sandbox {sandbox:?} is gone")]
    ShimGone {
        /// The sandbox.
        sandbox: String,
    },
    /// The process that holds the sandbox reported an error.
    #[error("{message}")]
    Shim {
        /// What it said.
        message: String,
    },
    /// The system refused.
    #[error("{operation} {path}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Error {
    /// Makes the closure that turns an I/O error into ours, for `map_err`.
    pub(crate) fn io<'a, E: Into<std::io::Error>>(
        operation: &'static str,
        path: impl AsRef<std::path::Path> + 'a,
    ) -> impl FnOnce(E) -> Error + 'a {
        move |source| Error::Io { operation, path: path.as_ref().to_path_buf(), source: source.into() }
    }
}
