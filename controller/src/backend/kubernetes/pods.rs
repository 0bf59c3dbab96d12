//! This installation's pods, as they are now: listed, and then watched, so that a look costs the cluster nothing. Every
//! answer is as old as the last list at most, which is made again and again; one that is too old is no answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use davit_api::InstallationId;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::errors::{Asked, failed};
use super::state;
use crate::backend::{BackendError, LABEL_INSTALLATION, Observed};

/// From one list to the next. Longer watches would be cheaper, and what they miss would be missed for longer.
const WATCH_SECONDS: u32 = 30;
/// A watch whose connection is dead says nothing at all; the next list is what finds out.
const WATCH: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// A list that takes longer has failed.
const LIST: Duration = Duration::from_secs(15);
/// An answer may be as old as a list, the watch behind it and the next list.
const FRESH: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Pods of one list's page.
const PAGE: u32 = 500;

/// What is known of the pods.
#[derive(Default)]
struct Known {
    pods: BTreeMap<String, Arc<Pod>>,
    /// When the last list was asked for that was answered.
    listed: Option<Instant>,
    /// Made here since then: a list that was asked for before may not have them.
    made: HashMap<String, Instant>,
    /// Removed here: what the cluster says of them from now on is old news.
    removed: HashSet<String>,
    /// Why the last list failed.
    error: Option<BackendError>,
}

/// The pods; the watch ends when it is dropped.
pub(super) struct Pods {
    known: Arc<Mutex<Known>>,
    watch: tokio::task::JoinHandle<()>,
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Pods {
    /// Lists the installation's pods and begins to watch them.
    pub(super) async fn open(
        api: Api<Pod>,
        namespace: String,
        installation: InstallationId,
    ) -> Result<Self, BackendError> {
        let known = Arc::new(Mutex::new(Known::default()));
        let watcher = Watcher {
            api,
            namespace,
            known: known.clone(),
            label: format!("{LABEL_INSTALLATION}={installation}"),
        };
        let version = watcher.list().await?;
        let watch = tokio::spawn(watcher.run(version));
        Ok(Self { known, watch })
    }

    /// All of them that are not on their way out.
    pub(super) fn observe(&self) -> Result<Vec<Observed>, BackendError> {
        self.known.lock().observe(Instant::now())
    }

    /// One of them.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Pod>> {
        self.known.lock().pods.get(name).cloned()
    }

    /// Notes one that was just made, so that nobody has to wait for the news of it.
    pub(super) fn made(&self, pod: Pod) {
        let Some(name) = pod.metadata.name.clone() else { return };
        let mut known = self.known.lock();
        known.made.insert(name.clone(), Instant::now());
        // The watch may have been quicker, and know more.
        known.pods.entry(name).or_insert_with(|| Arc::new(pod));
    }

    /// Notes one whose removal the cluster has accepted.
    pub(super) fn removed(&self, name: &str) {
        self.known.lock().removed.insert(name.to_owned());
    }
}

struct Watcher {
    api: Api<Pod>,
    namespace: String,
    known: Arc<Mutex<Known>>,
    label: String,
}

impl Watcher {
    async fn run(self, mut version: String) {
        let mut pause = PAUSE;
        loop {
            let began = Instant::now();
            if let Err(error) = self.watch(&version).await {
                tracing::debug!(%error, "the watch of the pods ended");
            }
            // A watch that ends at once is not asked for at once again.
            if began.elapsed() < PAUSE {
                tokio::time::sleep(PAUSE).await;
            }
            loop {
                match self.list().await {
                    Ok(listed) => {
                        version = listed;
                        pause = PAUSE;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot list the pods");
                        self.known.lock().error = Some(error);
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
    }

    /// Reads all of them; the version of the list.
    async fn list(&self) -> Result<String, BackendError> {
        let asked = Instant::now();
        let pages = tokio::time::timeout(LIST, self.pages()).await;
        let (pods, version) = pages.map_err(|_| BackendError::Deadline("listing the pods"))??;
        self.known.lock().replace(pods, asked);
        Ok(version)
    }

    async fn pages(&self) -> Result<(Vec<Pod>, String), BackendError> {
        let mut pods = Vec::new();
        let mut params = ListParams::default().labels(&self.label).limit(PAGE);
        loop {
            let asked = Asked { verb: "list", resource: "pods", namespace: &self.namespace };
            let page = self.api.list(&params).await.map_err(|e| failed(asked, e))?;
            pods.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok((pods, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    /// Takes in what happens after that version, until the cluster or the time ends it.
    async fn watch(&self, version: &str) -> Result<(), BackendError> {
        let asked = Asked { verb: "watch", resource: "pods", namespace: &self.namespace };
        let params = WatchParams::default().labels(&self.label).timeout(WATCH_SECONDS);
        let watching = async {
            let mut events = self.api.watch(&params, version).await.map_err(|e| failed(asked, e))?.boxed();
            while let Some(event) = events.next().await {
                match event.map_err(|e| failed(asked, e))? {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => self.known.lock().put(pod),
                    WatchEvent::Deleted(pod) => self.known.lock().forget(&pod),
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(status) => return Err(failed(asked, kube::Error::Api(status))),
                }
            }
            Ok(())
        };
        tokio::time::timeout(WATCH, watching).await.unwrap_or(Ok(()))
    }
}

impl Known {
    fn observe(&self, now: Instant) -> Result<Vec<Observed>, BackendError> {
        if self.listed.is_none_or(|at| now.saturating_duration_since(at) > FRESH) {
            let silent =
                || BackendError::Unavailable("the cluster's API has not listed pods for a minute".into());
            return Err(self.error.clone().unwrap_or_else(silent));
        }
        let there = self.pods.iter().filter(|(name, _)| !self.removed.contains(*name));
        Ok(there.filter_map(|(_, pod)| state::observed(pod)).collect())
    }

    fn put(&mut self, mut pod: Pod) {
        pod.metadata.managed_fields = None;
        if let Some(name) = pod.metadata.name.clone() {
            self.pods.insert(name, Arc::new(pod));
        }
    }

    fn forget(&mut self, pod: &Pod) {
        if let Some(name) = &pod.metadata.name {
            self.pods.remove(name);
            self.made.remove(name);
            self.removed.remove(name);
        }
    }

    /// Takes a list over that was asked for at some time.
    fn replace(&mut self, pods: Vec<Pod>, asked: Instant) {
        self.made.retain(|_, at| *at >= asked);
        let Self { pods: old, made, .. } = self;
        old.retain(|name, _| made.contains_key(name));
        for pod in pods {
            self.put(pod);
        }
        let there = &self.pods;
        self.removed.retain(|name| there.contains_key(name));
        self.listed = Some(asked);
        self.error = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn pod(name: &str) -> Pod {
        Pod { metadata: ObjectMeta { name: Some(name.into()), ..Default::default() }, ..Default::default() }
    }

    fn pods() -> Pods {
        Pods { known: Arc::default(), watch: tokio::spawn(std::future::pending()) }
    }

    fn names(pods: &Pods) -> Vec<String> {
        pods.observe().unwrap().into_iter().map(|seen| seen.container.0).collect()
    }

    #[tokio::test]
    async fn a_list_from_before_a_start_does_not_forget_it() {
        let pods = pods();
        let asked = Instant::now();
        pods.made(pod("new"));
        pods.known.lock().replace(vec![pod("old")], asked);
        assert_eq!(names(&pods), ["new", "old"]);
        pods.known.lock().replace(vec![pod("old")], Instant::now());
        assert_eq!(names(&pods), ["old"], "one from after it does");
    }

    #[tokio::test]
    async fn what_was_removed_here_is_not_seen_again() {
        let pods = pods();
        pods.known.lock().replace(vec![pod("a"), pod("b")], Instant::now());
        pods.removed("a");
        pods.known.lock().put(pod("a"));
        assert_eq!(names(&pods), ["b"]);
        pods.known.lock().replace(vec![pod("b")], Instant::now());
        assert!(pods.known.lock().removed.is_empty(), "nothing is remembered of what is gone");
    }

    #[test]
    fn an_old_list_is_no_answer() {
        let (mut known, now) = (Known::default(), Instant::now());
        assert!(matches!(known.observe(now), Err(BackendError::Unavailable(_))));
        known.replace(vec![pod("a")], now);
        assert_eq!(known.observe(now + FRESH).unwrap().len(), 1);
        let later = now + FRESH + Duration::from_secs(1);
        assert!(known.observe(later).is_err_and(|error| error.to_string().contains("for a minute")));
        known.error = Some(BackendError::Unavailable("no route".into()));
        assert_eq!(known.observe(later), Err(BackendError::Unavailable("no route".into())));
    }
}
