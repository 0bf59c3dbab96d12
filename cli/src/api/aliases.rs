//! Aliases, canaries, comparisons, and what is kept.

use davit_api::{
    AliasName, AliasSettings, AliasView, CanaryView, FunctionName, Promote, RetentionPolicy, RetentionView,
    VersionDiff, VersionView,
};
use reqwest::Method;
use serde_json::json;

use super::Api;
use crate::failure::Result;

impl Api {
    pub(crate) async fn promote(&self, function: &FunctionName, body: &Promote) -> Result<VersionView> {
        self.management.post(&self.of_function(function, "/promote"), body).await
    }

    pub(crate) async fn aliases(&self, function: &FunctionName) -> Result<Vec<AliasView>> {
        self.management.get(&self.of_function(function, "/aliases")).await
    }

    pub(crate) async fn alias(&self, function: &FunctionName, alias: &AliasName) -> Result<AliasView> {
        self.management.get(&self.of_function(function, &format!("/aliases/{alias}"))).await
    }

    pub(crate) async fn set_alias(
        &self,
        function: &FunctionName,
        alias: &AliasName,
        settings: &AliasSettings,
    ) -> Result<AliasView> {
        let path = self.of_function(function, &format!("/aliases/{alias}"));
        self.management.json(self.management.request(Method::PUT, &path).json(settings)).await
    }

    pub(crate) async fn remove_alias(&self, function: &FunctionName, alias: &AliasName) -> Result<()> {
        self.management.delete(&self.of_function(function, &format!("/aliases/{alias}"))).await
    }

    /// A function's canaries, newest first.
    pub(crate) async fn canaries(&self, function: &FunctionName) -> Result<Vec<CanaryView>> {
        self.management.get(&self.of_function(function, "/canaries")).await
    }

    /// `verb` is `abort` or `promote`.
    pub(crate) async fn end_canary(&self, function: &FunctionName, verb: &str) -> Result<CanaryView> {
        self.management.post(&self.of_function(function, &format!("/canaries/{verb}")), &json!({})).await
    }

    pub(crate) async fn diff(
        &self,
        function: &FunctionName,
        from: u32,
        to: u32,
        lines: bool,
    ) -> Result<VersionDiff> {
        let rest = format!("/diff?from={from}&to={to}&lines={lines}");
        self.management.get(&self.of_function(function, &rest)).await
    }

    pub(crate) async fn delete_version(&self, function: &FunctionName, number: u32) -> Result<()> {
        self.management.delete(&self.of_function(function, &format!("/versions/{number}"))).await
    }

    pub(crate) async fn cancel_build(&self, function: &FunctionName, number: u32) -> Result<()> {
        let path = self.of_function(function, &format!("/versions/{number}/cancel"));
        self.management.send(self.management.request(Method::POST, &path)).await.map(|_| ())
    }

    fn kept(&self, function: Option<&FunctionName>) -> String {
        match function {
            Some(function) => self.of_function(function, "/retention"),
            None => self.in_namespace("retention"),
        }
    }

    /// How many versions are kept, of a function or in the namespace.
    pub(crate) async fn retention(&self, function: Option<&FunctionName>) -> Result<RetentionView> {
        self.management.get(&self.kept(function)).await
    }

    pub(crate) async fn set_retention(
        &self,
        function: Option<&FunctionName>,
        policy: &RetentionPolicy,
    ) -> Result<RetentionView> {
        let request = self.management.request(Method::PUT, &self.kept(function)).json(policy);
        self.management.json(request).await
    }
}
