//! Runtimes, and what runs in their earlier images.

use davit_api::{FunctionBehind, FunctionName, RuntimeName, RuntimeUpgrade, RuntimeView, VersionAccepted};

use super::Api;
use crate::failure::Result;

impl Api {
    pub(crate) async fn runtimes(&self) -> Result<Vec<RuntimeView>> {
        self.management.get(&self.in_namespace("runtimes")).await
    }

    /// All functions that run in an earlier image, by name.
    pub(crate) async fn functions_behind(
        &self,
        runtime: Option<&RuntimeName>,
    ) -> Result<Vec<FunctionBehind>> {
        let filter = runtime.map(|runtime| format!("&runtime={runtime}")).unwrap_or_default();
        let path = self.in_namespace("runtimes/behind");
        Ok(self.pages(&path, &filter, 1_000, None).await?.0)
    }

    pub(crate) async fn upgrade_runtime(
        &self,
        function: &FunctionName,
        body: &RuntimeUpgrade,
    ) -> Result<VersionAccepted> {
        self.management.post(&self.of_function(function, "/upgrade"), body).await
    }
}
