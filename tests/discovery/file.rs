//! Members from a watched file.

use std::error::Error as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use lvs::discovery::FileSource;

use crate::world::*;

fn watch(path: &Path) -> (BackendSet<SocketAddr>, FeedHandle) {
    let set = BackendSet::new();
    let feed = Feed::new(&set, FileSource::new(path)).removal(RemovalPolicy::AtOnce);
    let handle = feed.handle();
    tokio::spawn(feed.run());
    (set, handle)
}

#[tokio::test(start_paused = true)]
async fn the_set_follows_the_file_and_a_malformed_file_changes_nothing() {
    let folder = Folder::new();
    let path = folder.write("members", "10.0.0.1:80\n10.0.0.2:80 weight=2\n");
    let (set, mut feed) = watch(&path);
    becomes(&set, &["10.0.0.1:80 1", "10.0.0.2:80 2"]).await;

    folder.write("members", "10.0.0.3:80\n10.0.0.2:80 weight=two\n");
    let status = until(&mut feed, |status| status.state == FeedState::Failing).await;
    let expected =
        format!("{}:2:20: weight must be a number from 0 to 65535, not \"two\"", path.display());
    assert_eq!(status.last_error.expect("an error").to_string(), expected);
    assert_eq!(shows(&set), ["10.0.0.1:80 1", "10.0.0.2:80 2"]);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(feed.status().failures, 1, "a failure is reported once");

    folder.write("members", "10.0.0.3:80\n10.0.0.2:80 weight=3\n");
    becomes(&set, &["10.0.0.2:80 3", "10.0.0.3:80 1"]).await;
    assert_eq!(feed.status().state, FeedState::Current);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_not_used_while_it_changes() {
    let folder = Folder::new();
    let path = folder.write("members", "10.0.0.1:80");
    let (set, feed) = watch(&path);
    becomes(&set, &["10.0.0.1:80 1"]).await;
    for port in 81..120 {
        folder.write("members", format!("10.0.0.1:{port}"));
        sleep(Duration::from_millis(60)).await;
        assert_eq!(shows(&set), ["10.0.0.1:80 1"]);
    }
    becomes(&set, &["10.0.0.1:119 1"]).await;
    assert!(
        feed.status().failures <= 1,
        "a file that always changes is a failure after some reads"
    );
}

#[tokio::test(start_paused = true)]
async fn a_removed_file_that_is_restored_is_valid_again() {
    let folder = Folder::new();
    let path = folder.path().join("members");
    let (set, mut feed) = watch(&path);
    let status = until(&mut feed, |status| status.state == FeedState::Failing).await;
    let error = status.last_error.expect("an error");
    let expected = format!("cannot read {}: No such file", path.display());
    assert!(error.to_string().starts_with(&expected), "{error}");

    folder.write("members", "10.0.0.1:80");
    until(&mut feed, |status| status.state == FeedState::Current).await;
    fs::remove_file(&path).expect("it is there");
    until(&mut feed, |status| status.state == FeedState::Failing).await;
    folder.write("members", "10.0.0.1:80");
    until(&mut feed, |status| status.state == FeedState::Current).await;
    assert_eq!(shows(&set), ["10.0.0.1:80 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_and_invalid_text_and_a_folder_are_failures() {
    let folder = Folder::new();
    let path = folder.write("members", "10.0.0.1:80");
    let (set, mut feed) = watch(&path);
    becomes(&set, &["10.0.0.1:80 1"]).await;
    folder.write("members", b"10.0.0.1:80\n10.0.0.2:80 name=\xff\n");
    let status = until(&mut feed, |status| status.failures == 1).await;
    let expected = format!("{}:2:18: the text is not UTF-8", path.display());
    assert_eq!(status.last_error.expect("an error").to_string(), expected);
    folder.write("members", "# nobody\n");
    until(&mut feed, |status| status.failures == 2).await;
    fs::remove_file(&path).expect("it is there");
    fs::create_dir(&path).expect("the name is free");
    let status = until(&mut feed, |status| status.failures >= 3).await;
    let error = status.last_error.expect("an error");
    // The file may have been read as missing between the two steps.
    let reason = match error.source().expect("a cause").to_string() {
        text if text.contains("regular") => text,
        _ => {
            let status = until(&mut feed, |status| status.failures == 4).await;
            status.last_error.expect("an error").source().expect("a cause").to_string()
        }
    };
    assert_eq!(reason, "not a regular file");
    assert_eq!(shows(&set), ["10.0.0.1:80 1"]);
}

/// How Kubernetes changes a ConfigMap: the file is a link into `..data`, which is a link to a
/// folder of that version, and the latter is replaced by a rename.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn changed_symbolic_links_are_followed() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let version = |name: &str, content: &str| {
        fs::create_dir(folder.path().join(name)).expect("a new version");
        folder.write(&format!("{name}/members"), content);
        symlink(name, folder.path().join("..new")).expect("a new link");
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).expect("at once");
    };
    version("..1", "10.0.0.1:80\n");
    symlink("..data/members", folder.path().join("members")).expect("a new link");
    let (set, feed) = watch(&folder.path().join("members"));
    becomes(&set, &["10.0.0.1:80 1"]).await;
    version("..2", "10.0.0.2:80\n");
    becomes(&set, &["10.0.0.2:80 1"]).await;
    assert_eq!(feed.status().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_too_large_is_not_read_to_its_end() {
    let folder = Folder::new();
    let path = folder.path().join("members");
    let file = fs::File::create(&path).expect("a folder of ours");
    file.set_len(1 << 40).expect("a sparse file");
    let (_set, mut feed) = watch(&path);
    let status = until(&mut feed, |status| status.state == FeedState::Failing).await;
    let error = status.last_error.expect("an error");
    assert_eq!(error.source().expect("a cause").to_string(), "the file is larger than 16 MiB");
}
