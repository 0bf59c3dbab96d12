//! The record of what a project looks after: written by one at a time, and no object is in two.

use davit_api::{ErrorCode, ProjectRecord};

use crate::support::{code, fresh, ns};

fn record(revision: Option<u32>, objects: &[&str]) -> ProjectRecord {
    ProjectRecord { revision, objects: objects.iter().map(|o| o.parse().unwrap()).collect() }
}

#[tokio::test]
async fn a_record_is_written_by_whoever_has_read_the_last_one() {
    let db = fresh().await;
    let davit = db.registry().as_davit("test");
    let (shop, blog) = ("shop".parse().unwrap(), "blog".parse().unwrap());
    let first = davit.put_project(&ns(), &shop, &record(None, &["topic/b", "function/a"])).await.unwrap();
    assert_eq!(first.revision, 1);
    assert_eq!(first.objects.iter().map(ToString::to_string).collect::<Vec<_>>(), ["function/a", "topic/b"]);
    let again = davit.put_project(&ns(), &shop, &record(None, &[])).await;
    assert_eq!(code(again), ErrorCode::Conflict, "there is one already");
    let second = davit.put_project(&ns(), &shop, &record(Some(1), &["function/a"])).await.unwrap();
    assert_eq!(second.revision, 2);
    let late = davit.put_project(&ns(), &shop, &record(Some(1), &[])).await;
    assert_eq!(code(late), ErrorCode::Conflict, "somebody else was faster");

    let taken = davit.put_project(&ns(), &blog, &record(None, &["topic/x", "function/a"])).await.unwrap_err();
    assert!(taken.to_string().contains("function/a is the project shop's"), "{taken}");
    davit.put_project(&ns(), &blog, &record(None, &["topic/b"])).await.unwrap();
    let names: Vec<_> =
        db.registry().list_projects(&ns()).await.unwrap().iter().map(|p| p.name.to_string()).collect();
    assert_eq!(names, ["blog", "shop"]);

    davit.remove_project(&ns(), &shop).await.unwrap();
    assert_eq!(code(davit.remove_project(&ns(), &shop).await), ErrorCode::NotFound);
    davit.put_project(&ns(), &blog, &record(Some(1), &["function/a"])).await.unwrap();
}
