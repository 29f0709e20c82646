//! What every room shares and nothing more: identities, time, the caller of a request, the shape of a service, errors
//! for callers, and the metrics registry. It knows no protocol, no storage engine and no service.

pub mod disk;
pub mod error;
pub mod ids;
pub mod metrics;
pub mod service;
pub mod small_file;
mod streamed;
pub mod time;

pub use disk::{Disk, DiskFile, SystemDisk};
pub use error::{ApiError, Fault};
pub use ids::{AccountId, Region, ResourceName};
pub use service::{
    Authorizer, ByteStream, Caller, Crowd, Handle, Operation, Reply, Request, RequestContext, StreamError,
};
pub use small_file::{read_small, replace_small};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
