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
use crate::world::namespaces::skipped::report_skipped;
use crate::world::{Signal, World, config};

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
    page.until("the service", "document.body.innerText.includes('2 of 2 eligible')");
    let served = "Number(document.querySelector('.facts b').innerText.replaceAll(',', ''))";
    let before = page.evaluate(served).as_f64().expect("a number");
    page.until("the count of served connections to grow", &format!("{served} > {before}"));
    page.until("a chart", "document.querySelector('svg path').getAttribute('d').length > 40");
    // Names are shown as text, also if they contain markup.
    assert_eq!(page.evaluate("document.querySelectorAll('td b b').length"), 0);

    // By the keyboard: the button, then the dialog, whose confirm button has the focus.
    page.evaluate(&format!("{}.querySelector('button').focus()", row("alpha")));
    page.press("Enter");
    page.until("the confirmation dialog", "document.getElementById('ask').open");
    assert!(
        page.evaluate("document.getElementById('question').innerText")
            .to_string()
            .contains("alpha")
    );
    page.press("Enter");
    page.until("the state draining", &format!("{}.innerText.includes('draining')", row("alpha")));
    let status = loaded.director.status();
    let drained =
        status.services[0].servers.iter().find(|server| server.name.as_deref() == Some("alpha"));
    assert_eq!(drained.map(|server| server.state), Some("draining"));
    page.until("the mark \"by hand\"", &format!("{}.innerText.includes('by hand')", row("alpha")));

    // Another weight, then a dialog that is cancelled.
    let button = format!("{}.querySelectorAll('button')[1].click()", row("beta"));
    page.evaluate(&button);
    page.evaluate("document.getElementById('weight').value = 7");
    page.evaluate("document.getElementById('weight').focus()");
    page.press("Enter");
    page.until(
        "the state master",
        &format!("{}.querySelectorAll('td')[2].innerText == '7'", row("beta")),
    );
    page.evaluate(&format!("{}.querySelector('button').click()", row("beta")));
    page.evaluate("document.getElementById('ask').close('no')");
    let served = page.evaluate(served).as_f64().expect("a number");
    page.until(
        "more",
        &format!(
            "Number(document.querySelector('.facts b').innerText.replaceAll(',', '')) > {served}"
        ),
    );
    assert!(page.evaluate(&format!("{}.innerText.includes('eligible')", row("beta"))) == true);

    for (name, width, scheme) in [
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
        keep(&mut page, name);
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
         if (path.endsWith('/history')) await new Promise((done) => setTimeout(done, 300)); \
         return answer; };",
    );
    page.open(&loaded.url());
    page.until("the confirmation dialog", "document.getElementById('enter')?.open == true");
    assert_eq!(page.evaluate("document.querySelectorAll('section.card').length"), 0);
    page.evaluate("document.getElementById('token').value = 'wrong wrong wrong wrong'");
    page.evaluate("document.getElementById('enter').close()");
    page.until("the token dialog again", "document.getElementById('enter').open");
    page.evaluate("document.getElementById('token').value = 'sesame sesame sesame'");
    page.evaluate("document.getElementById('enter').close()");
    page.until("the service", "document.body.innerText.includes('2 of 2 eligible')");
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
    world::until("a is active", || world.has("a", world::VIRTUAL));
    world::until("b answers", || world.status("b").is_some());
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
