//! Durable events per second: `appends FOLDER [PRODUCERS] [EVENTS EACH] [BYTES]`. The folder's log is made anew and removed.

use eventing::log::{Directory as _, Folder, Log, measure};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = Folder::open(Path::new(&arguments.next().ok_or("a folder is needed")?))?;
    let mut number = |missing: u64| arguments.next().map_or(Ok(missing), |own| own.parse());
    let (producers, each, bytes) = (number(32)?, number(2000)?, number(1024)?);
    folder.remove("appends")?;
    let log = Arc::new(Log::open(folder.folder("appends")?)?);
    let measured = measure::appends(&log, producers, each, usize::try_from(bytes)?).await?;
    println!("{:.0} events/s, {} events in {:?}", measured.per_second(), measured.events, measured.took);
    folder.remove("appends")?;
    Ok(())
}
