//! The status page, in a browser.
//!
//! With `LVS_PICTURES=FOLDER` it writes pictures there: in the light and in the dark colour scheme, for
//! a desktop and for a phone.
#![cfg(all(feature = "director", target_os = "linux"))]

mod chromium;
#[path = "../standby/world.rs"]
mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lvs::director::{Director, DirectorConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::chromium::Chromium;
use crate::world::machines::Signal;
use crate::world::machines::namespaces::skipped::report_skipped;
use crate::world::{World, config};

/// Returns whether Chromium is installed. In CI its absence is an error.
fn can_run() -> bool {
    if chromium::is_there() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "`chromium` is missing");
    report_skipped("chromium is not installed");
    false
}

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lvs-page-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A director under load, on a runtime of its own.
struct Loaded {
    runtime: tokio::runtime::Runtime,
    director: Director,
}

impl Loaded {
    fn start(token: Option<&str>) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let director = runtime.block_on(async {
            let mut text = format!(
                "[admin]\nlisten = \"127.0.0.1:0\"\n{}[[service]]\nname = \"web\"\nlisten = \
                 \"127.0.0.1:0\"\nscheduler = \"rr\"\n",
                token.map_or(String::new(), |token| format!("token = \"{token}\"\n")),
            );
            for name in ["alpha", "beta <b>"] {
                let address = server().await;
                text +=
                    &format!("[[service.server]]\nname = \"{name}\"\naddress = \"{address}\"\n");
            }
            let config = DirectorConfig::parse(&text).expect("sound");
            Director::start(config).await.expect("it starts")
        });
        let listen: SocketAddr =
            director.status().services[0].listen[0].parse().expect("an address");
        runtime.spawn(async move {
            loop {
                let mut stream = TcpStream::connect(listen).await.expect("served");
                let _ = stream.read_u8().await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { runtime, director }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.director.admin_address().expect("there"))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.runtime.block_on(self.director.stop(Duration::ZERO));
    }
}

async fn server() -> SocketAddr {
    let listener = TcpListener::bind(ANY).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"x").await;
        }
    });
    address
}

/// Returns an expression for the table row of a server.
fn row(name: &str) -> String {
    format!("[...document.querySelectorAll('tr')].find((it) => it.innerText.includes({name:?}))")
}

/// The number of connections that the open service has accepted.
const ACCEPTED: &str = "Number(document.querySelector('.facts').innerText.match(/accepted ([\\d,]+)/)[1].replaceAll(',', ''))";

/// Waits until the page shows a newer status.
fn wait_for_news(page: &mut Chromium) {
    let accepted = page.evaluate(ACCEPTED).as_f64().expect("a number");
    page.until("the count of accepted connections to grow", &format!("{ACCEPTED} > {accepted}"));
}

#[test]
fn the_page_shows_traffic_and_drains_a_server() {
    if !can_run() {
        return;
    }
    let loaded = Loaded::start(None);
    let folder = Folder::new("web");
    let mut page = Chromium::start(None, &folder.0);
    page.look(1280, "light");
    page.open(&loaded.url());
    page.until("the tile", "document.querySelector('.tile .servers').innerText == '2/2'");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    assert_eq!(page.evaluate("document.getElementById('host').innerText"), host.trim());

    // By the keyboard: the tile, the button, then the dialog, whose confirm button has the focus.
    page.press("ArrowRight");
    page.press("Enter");
    page.until("the servers", &format!("{}.innerText.includes('eligible for')", row("alpha")));
    wait_for_news(&mut page);
    page.until("a chart", "document.querySelector('svg .one').getAttribute('d').length > 40");
    // Names are shown as text, also if they contain markup.
    assert_eq!(page.evaluate("document.querySelectorAll('td b b').length"), 0);
    let select = format!(
        "getSelection().selectAllChildren({}.querySelector('.address')); getSelection().toString()",
        row("beta")
    );
    // What the user has selected stays selected.
    let selected = page.evaluate(&select);
    wait_for_news(&mut page);
    assert_eq!(page.evaluate("getSelection().toString()"), selected);
    page.evaluate(&format!("{}.querySelector('button').focus()", row("alpha")));
    page.press("Enter");
    page.until("the confirmation dialog", "document.getElementById('ask').open");
    let question = page.evaluate("document.getElementById('question').innerText");
    assert!(question.to_string().contains("alpha"), "{question}");
    // The page goes on below the dialog.
    wait_for_news(&mut page);
    assert_eq!(page.evaluate("document.getElementById('ask').open"), true);
    page.evaluate("document.getElementById('operator').value = 'alice'");
    page.press("Enter");
    page.until("the state draining", &format!("{}.innerText.includes('draining')", row("alpha")));
    let status = loaded.director.status();
    let drained =
        status.services[0].servers.iter().find(|server| server.name.as_deref() == Some("alpha"));
    let drained = drained.expect("the server is there");
    let by = drained.changed.as_ref().map(|changed| changed.by.starts_with("alice at 127.0.0.1:"));
    assert_eq!((drained.state, by), ("draining", Some(true)));
    page.until("who", &format!("{}.innerText.includes('by alice at 127.0.0.1')", row("alpha")));
    assert_eq!(page.evaluate("document.activeElement.innerText"), "Undrain");

    // Another weight and a limit, then a dialog that is cancelled.
    page.evaluate(&format!("{}.querySelectorAll('button')[1].click()", row("beta")));
    page.evaluate("document.getElementById('weight').value = 7");
    page.evaluate("document.getElementById('max_connections').value = 50");
    page.evaluate("document.getElementById('weight').focus()");
    page.press("Enter");
    page.until(
        "the weight and the limit",
        &format!(
            "{0}.cells[2].innerText == '7' && {0}.cells[3].innerText.endsWith('/ 50')",
            row("beta")
        ),
    );
    page.evaluate(&format!("{}.querySelector('button').click()", row("beta")));
    page.evaluate("document.getElementById('ask').close('no')");
    wait_for_news(&mut page);
    assert!(page.evaluate(&format!("{}.innerText.includes('eligible')", row("beta"))) == true);
    keep_all_looks(&mut page, "service");

    // Back, and a search: both servers are listed, since both were changed.
    page.press("Escape");
    let listed = "document.getElementById('attention').children.length";
    page.until("both servers", &format!("{listed} == 2"));
    let events = "document.getElementById('events').innerText";
    page.until("the event", &format!("{events}.includes('state drain by alice at 127.0.0.1:')"));
    page.evaluate("document.activeElement.blur(); getSelection().empty(); document.body.focus()");
    page.press("/");
    page.evaluate("document.activeElement.value = 'alph'");
    page.evaluate("document.activeElement.dispatchEvent(new Event('input'))");
    page.until("one server", &format!("{listed} == 1"));
    assert_eq!(page.evaluate("document.querySelectorAll('.tile').length"), 0);
    page.press("Escape");
    page.until("the tile again", "document.querySelectorAll('.tile').length == 1");
    keep_all_looks(&mut page, "overview");

    // A director that is gone is not shown as if it were there.
    loaded.runtime.block_on(loaded.director.stop(Duration::ZERO));
    page.until("the alert", "document.getElementById('trouble').innerText.includes('not answer')");
    assert_eq!(page.evaluate("document.getElementById('role').innerText"), "no answer");
    assert_eq!(page.evaluate("document.body.className"), "stale");
    keep(&mut page, "stale");
}

#[test]
fn fifty_services_with_a_thousand_servers_fit_a_screen() {
    if !can_run() {
        return;
    }
    let mut text = "workers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for service in 0..50 {
        text += &format!("[[service]]\nname = \"s{service}\"\nlisten = \"127.0.0.1:0\"\n");
        for server in 1..=20 {
            text += &format!("[[service.server]]\naddress = \"10.0.{service}.{server}:80\"\n");
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let config = DirectorConfig::parse(&text).expect("sound");
    let director = runtime.block_on(Director::start(config)).expect("it starts");
    let folder = Folder::new("fifty");
    let mut page = Chromium::start(None, &folder.0);
    page.look(1280, "light");
    page.open(&format!("http://{}/", director.admin_address().expect("there")));
    page.until("the tiles", "document.querySelectorAll('.tile').length == 50");
    let bottom = "document.getElementById('tiles').getBoundingClientRect().bottom <= innerHeight";
    assert_eq!(page.evaluate(bottom), true);
    runtime.block_on(director.stop(Duration::ZERO));
}

/// Writes pictures in both colour schemes, for a desktop and for a phone.
fn keep_all_looks(page: &mut Chromium, name: &str) {
    for (look, width, scheme) in [
        ("light", 1280, "light"),
        ("dark", 1280, "dark"),
        ("phone-light", 390, "light"),
        ("phone-dark", 390, "dark"),
    ] {
        page.look(width, scheme);
        page.until(
            "the page without horizontal scrolling",
            "document.documentElement.scrollWidth <= innerWidth",
        );
        keep(page, &format!("{name}-{look}"));
    }
}

/// Writes a picture, if `LVS_PICTURES` is set.
fn keep(page: &mut Chromium, name: &str) {
    let picture = page.picture();
    assert!(picture.len() > 10_000, "the screenshot is not empty");
    if let Some(folder) = std::env::var_os("LVS_PICTURES") {
        let file = std::path::Path::new(&folder).join(format!("{name}.png.base64"));
        std::fs::write(file, picture).expect("a folder");
    }
}

#[test]
fn the_page_asks_for_the_token() {
    if !can_run() {
        return;
    }
    let loaded = Loaded::start(Some("sesame sesame sesame"));
    let folder = Folder::new("token");
    let mut page = Chromium::start(None, &folder.0);
    // One of the two requests is answered late, after the other answer was handled.
    page.before(
        "const real = fetch; fetch = async (path, how) => { const answer = await real(path, how); \
         if (path.includes('/events')) await new Promise((done) => setTimeout(done, 300)); \
         return answer; };",
    );
    page.open(&loaded.url());
    page.until("the confirmation dialog", "document.getElementById('enter')?.open == true");
    assert_eq!(page.evaluate("document.querySelectorAll('.tile').length"), 0);
    page.evaluate("document.getElementById('token').value = 'wrong wrong wrong wrong'");
    page.evaluate("document.getElementById('enter').close()");
    page.until("the token dialog again", "document.getElementById('enter').open");
    page.evaluate("document.getElementById('token').value = 'sesame sesame sesame'");
    page.evaluate("document.getElementById('enter').close()");
    page.until("the service", "document.querySelector('.tile .servers').innerText == '2/2'");
}

#[test]
fn the_page_shows_a_failover() {
    if !can_run() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    world.servers(&[9001, 9002]);
    let mut a = world.director("a", &config("a", 100, ""));
    let _b = world.director("b", &config("b", 100, ""));
    world::machines::until("a is active", || world.has("a", world::VIRTUAL));
    world::machines::until("b answers", || world.status("b").is_some());
    let folder = Folder::new("pair");
    let mut page = Chromium::start(Some(&world.space("b")), &folder.0);
    page.look(1280, "light");
    page.open("http://127.0.0.1:9000/");
    page.until("the standby", "document.getElementById('role')?.innerText == 'standby'");
    page.until(
        "the state backup",
        "document.getElementById('routers').innerText.includes('backup')",
    );
    a.signal(Signal::KILL);
    page.until("the failover", "document.getElementById('role').innerText == 'active'");
    page.until(
        "the state master",
        "document.getElementById('routers').innerText.includes('master')",
    );
    keep(&mut page, "failover");
    a.kill();
}
