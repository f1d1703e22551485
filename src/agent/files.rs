//! ReadFile and WriteFile. Each step that may wait for a disk runs on a file thread; no step waits for the network
//! there.

use super::file_error::FileError;
use super::regular_file::{nonblocking, require_regular};
use super::replacement::Replacement;
use crate::proto::agent::write_file_request::Message;
use crate::proto::agent::{ReadFileRequest, ReadFileResponse, WriteFileRequest};
use bytes::Bytes;
use futures::stream::{Stream, StreamExt, try_unfold};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::{Status, Streaming};

/// Bytes of one chunk of a response.
const CHUNK: usize = 128 * 1024;
/// Most files that are read or written at once; other calls wait.
const MAX_OPEN_FILES: usize = 32;

/// Bounds the files that are read or written at once.
pub(super) type FileSlots = Arc<Semaphore>;
/// The response to [`read`].
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<ReadFileResponse, Status>> + Send>>;

pub(super) fn slots() -> FileSlots {
    Arc::new(Semaphore::new(MAX_OPEN_FILES))
}

/// Reads a regular file. A file that is too large is refused before anything is sent.
pub(super) async fn read(slots: &FileSlots, request: ReadFileRequest) -> Result<Chunks, Status> {
    let slot = slots
        .clone()
        .acquire_owned()
        .await
        .map_err(|_| Status::unavailable("the agent is exiting"))?;
    let ReadFileRequest { path, max_bytes } = request;
    let max_bytes = if max_bytes == 0 { u64::MAX } else { max_bytes };
    let open = {
        let path = path.clone();
        move || open(Path::new(&path), max_bytes)
    };
    let (file, size) = blocking(&path, open).await?;
    let chunks = try_unfold((file, size, max_bytes, path), |(file, size, left, path)| async move {
        let (file, data) = blocking(&path, move || chunk(file)).await?;
        if data.is_empty() {
            return Ok(None);
        }
        // The file has grown, or did not report its size.
        let Some(left) = left.checked_sub(data.len() as u64) else {
            return Err(FileError::TooLarge(None).status(&path));
        };
        Ok(Some((ReadFileResponse { data, size }, (file, 0, left, path))))
    });
    Ok(chunks
        .inspect(move |_| {
            let _ = &slot;
        })
        .boxed())
}

fn open(path: &Path, max_bytes: u64) -> Result<(File, u64), FileError> {
    // Before it is opened: to open a pipe or a device may have an effect.
    require_regular(&std::fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking()).open(path)?;
    let metadata = file.metadata()?;
    require_regular(&metadata)?;
    if metadata.len() > max_bytes {
        return Err(FileError::TooLarge(Some(metadata.len())));
    }
    Ok((file, metadata.len()))
}

fn chunk(file: File) -> Result<(File, Bytes), FileError> {
    let mut data = Vec::with_capacity(CHUNK);
    (&file).take(CHUNK as u64).read_to_end(&mut data)?;
    Ok((file, data.into()))
}

/// Replaces a file once the requests have ended without an error.
pub(super) async fn write(slots: &FileSlots, mut requests: Streaming<WriteFileRequest>) -> Result<(), Status> {
    let Some(Message::Start(start)) = requests.message().await?.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message must be start"));
    };
    let _slot = slots
        .acquire()
        .await
        .map_err(|_| Status::unavailable("the agent is exiting"))?;
    let path = start.path;
    let begin = {
        let path = path.clone();
        move || Replacement::begin(Path::new(&path), start.mode)
    };
    let mut file = blocking(&path, begin).await?;
    while let Some(request) = requests.message().await? {
        if let Some(Message::Data(data)) = request.message {
            file = blocking(&path, move || file.write(&data)).await?;
        }
    }
    // hyper reports a cancelled call as the end of its requests too, but drops this future at its next await.
    tokio::task::yield_now().await;
    blocking(&path, move || file.commit()).await
}

async fn blocking<T: Send + 'static>(
    path: &str,
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|failure| failure.status(path)),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
