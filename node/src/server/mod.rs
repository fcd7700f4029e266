//! The HTTPS API of the node.

use crate::context::NodeContext;
use crate::kubelet::Error;
use crate::options::ServerOptions;
use crate::pods::Pods;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(crate) async fn serve(
    _node: Arc<NodeContext>,
    _pods: Arc<Pods>,
    options: ServerOptions,
    _shutdown: CancellationToken,
) -> Result<(), Error> {
    let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
    Err(Error::Listen { address: options.listen, source })
}
