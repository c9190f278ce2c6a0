//! A headless Chromium that is told what to do, by the DevTools protocol over a pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::now;

/// A browser with one page, which ends with this.
pub(crate) struct Chromium {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
}

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn is_there() -> bool {
    Command::new("chromium").arg("--version").output().is_ok_and(|it| it.status.success())
}

impl Chromium {
    /// Starts it, in a network namespace if there is one, with its files in a folder.
    pub(crate) fn start(space: Option<&str>, folder: &Path) -> Self {
        // It speaks by the descriptors 3 and 4.
        let shell = format!(
            "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
             --no-first-run --user-data-dir={} --remote-debugging-pipe about:blank \
             3<&0 4>&1 </dev/null >/dev/null 2>&1",
            folder.display()
        );
        let mut command = match space {
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space, "sh"]);
                command
            }
            None => Command::new("sh"),
        };
        let mut child = command
            .args(["-c", &shell])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut browser = Self { child, input, output, session: None, number: 0 };
        let target = browser.tell("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.tell("Target.attachToTarget", target);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser
    }

    /// Tells it something, and gives its answer; what it says by itself is passed over.
    pub(crate) fn tell(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes()).expect("it runs");
        loop {
            let mut text = Vec::new();
            self.output.read_until(0, &mut text).expect("it runs");
            assert!(text.pop().is_some(), "it runs");
            let answer: Value = serde_json::from_slice(&text).expect("JSON");
            if answer["id"] == self.number {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.tell("Page.navigate", json!({ "url": url }));
    }

    /// Runs a script before those of each page that is opened from now on.
    pub(crate) fn before(&mut self, script: &str) {
        self.tell("Page.enable", json!({}));
        self.tell("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }));
    }

    /// What an expression of the page is.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        let answer = self.tell("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Until an expression of the page is true.
    pub(crate) fn until(&mut self, what: &str, expression: &str) {
        let end = now() + PATIENCE;
        // What is not there yet cannot be looked at.
        let tried =
            format!("(() => {{ try {{ return {expression} }} catch {{ return false }} }})()");
        while self.evaluate(&tried) != true {
            let text = self.evaluate("document.body?.innerText");
            assert!(now() < end, "{what} never came: {expression}\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key, as a person would.
    pub(crate) fn press(&mut self, key: &str) {
        let code = if key == "Enter" { 13 } else { 9 };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params =
                json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code });
            self.tell("Input.dispatchKeyEvent", params);
        }
    }

    /// A screen of this width, in the light or the dark.
    pub(crate) fn look(&mut self, width: u32, scheme: &str) {
        let params =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.tell("Emulation.setDeviceMetricsOverride", params);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.tell("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// A picture of the whole page, in base64.
    pub(crate) fn picture(&mut self) -> String {
        let params = json!({ "captureBeyondViewport": true });
        let picture = self.tell("Page.captureScreenshot", params);
        picture["data"].as_str().expect("a picture").to_owned()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It ends its own children.
        let message = json!({ "id": 0, "method": "Browser.close" });
        let _ = self.input.write_all(format!("{message}\0").as_bytes());
        let end = now() + Duration::from_secs(5);
        while now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
