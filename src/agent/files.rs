//! ReadFile and WriteFile. Each step that may wait for a disk runs on a thread of its own; none waits for the network there.

use super::file_error::Failure;
use super::replacement::Replacement;
use crate::proto::agent::write_file_request::Message;
use crate::proto::agent::{ReadFileRequest, ReadFileResponse, WriteFileRequest};
use bytes::Bytes;
use futures::stream::{Stream, StreamExt, try_unfold};
use rustix::fs::OFlags;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::{Status, Streaming};

/// Bytes of one chunk of an answer.
const CHUNK: usize = 128 * 1024;
/// Most files that are read or written at once; the others wait.
const AT_ONCE: usize = 32;

/// Bounds the files that are read or written at once.
pub type Limit = Arc<Semaphore>;
/// The answer to [`read`].
pub type Chunks = Pin<Box<dyn Stream<Item = Result<ReadFileResponse, Status>> + Send>>;

/// The usual limit.
pub fn limit() -> Limit {
    Arc::new(Semaphore::new(AT_ONCE))
}

/// Reads a regular file. What does not fit is refused before anything is sent.
pub async fn read(limit: &Limit, request: ReadFileRequest) -> Result<Chunks, Status> {
    let place = limit.clone().acquire_owned().await.map_err(|_| Status::unavailable("ending"))?;
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
        // It grew, or never told its size.
        let Some(left) = left.checked_sub(data.len() as u64) else {
            return Err(Failure::TooLarge(None).status(&path));
        };
        Ok(Some((ReadFileResponse { data, size }, (file, 0, left, path))))
    });
    Ok(chunks
        .inspect(move |_| {
            let _ = &place;
        })
        .boxed())
}

fn open(path: &Path, max_bytes: u64) -> Result<(File, u64), Failure> {
    // Looked at first: to open a pipe or a device may change something.
    regular(&std::fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(never_wait()).open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    if metadata.len() > max_bytes {
        return Err(Failure::TooLarge(Some(metadata.len())));
    }
    Ok((file, metadata.len()))
}

/// Flags with which opening does not block, whatever has come to the path meanwhile.
pub fn never_wait() -> i32 {
    (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed()
}

/// Refuses all but regular files.
pub fn regular(metadata: &Metadata) -> Result<(), Failure> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(Failure::IsDirectory),
        _ => Err(Failure::NotRegular),
    }
}

fn chunk(file: File) -> Result<(File, Bytes), Failure> {
    let mut data = Vec::with_capacity(CHUNK);
    (&file).take(CHUNK as u64).read_to_end(&mut data)?;
    Ok((file, data.into()))
}

/// Replaces a file. Until the requests have ended well it stays as it is.
pub async fn write(limit: &Limit, mut requests: Streaming<WriteFileRequest>) -> Result<(), Status> {
    let Some(Message::Start(start)) = requests.message().await?.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message must be start"));
    };
    let _place = limit.acquire().await.map_err(|_| Status::unavailable("ending"))?;
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
    // hyper reports a cancelled call as the end of its requests too, but drops us the next time that we wait.
    tokio::task::yield_now().await;
    blocking(&path, move || file.commit()).await
}

async fn blocking<T: Send + 'static>(path: &str, work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|failure| failure.status(path)),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
