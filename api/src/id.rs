//! Typed ids. A bare `Uuid` never leaves the module that parsed it, so a version's id cannot be handed
//! to something that wants an instance's.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id: version 7, so rows written together lie together in an index.
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }
        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

ids! {
    /// One installation of davit: everything it creates in a container engine carries this id.
    InstallationId;
    /// A namespace: the unit of tenancy.
    NamespaceId;
    /// A function, over all of its versions.
    FunctionId;
    /// One immutable version of a function.
    VersionId;
    /// One shift of traffic to a new version.
    CanaryId;
    /// One schedule of a function.
    ScheduleId;
    /// One event source of a namespace.
    SourceId;
    /// One container, from the decision to start it until it is gone.
    InstanceId;
    /// One gateway process, new at each start.
    GatewayId;
    /// One invocation, from acceptance to its recorded end; the request id that functions see.
    InvocationId;
    /// A topic.
    TopicId;
    /// A subscription of a topic.
    SubscriptionId;
    /// A message that was published to a topic.
    MessageId;
    /// An API token (the row, never the secret).
    TokenId;
    /// One request to the management API, as in its log line and audit entry.
    RequestId;
    /// A source archive that is being uploaded.
    ArtifactUploadId;
}
