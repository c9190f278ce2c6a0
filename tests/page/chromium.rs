//! A headless Chromium, controlled by the DevTools protocol over a pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::machines::now;

/// A browser with one page; dropped, it ends.
pub(crate) struct Chromium {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
}

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn is_there() -> bool {
    Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success())
}

impl Chromium {
    /// Starts the browser, in a network namespace if one is given, with its files in a folder.
    pub(crate) fn start(space: Option<&str>, folder: &Path) -> Self {
        // The protocol uses descriptors 3 and 4.
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
        let target = browser.send_command("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.send_command("Target.attachToTarget", target);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser
    }

    /// Sends a command, and returns its result; events are skipped.
    pub(crate) fn send_command(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes()).expect("chromium runs");
        loop {
            let mut text = Vec::new();
            self.output.read_until(0, &mut text).expect("chromium runs");
            assert!(text.pop().is_some(), "chromium runs");
            let answer: Value = serde_json::from_slice(&text).expect("JSON");
            if answer["id"] == self.number {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.send_command("Page.navigate", json!({ "url": url }));
    }

    /// Runs a script before the scripts of every page that is opened from now on.
    pub(crate) fn before(&mut self, script: &str) {
        self.send_command("Page.enable", json!({}));
        self.send_command("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }));
    }

    /// Evaluates an expression in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        let answer = self.send_command("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    pub(crate) fn until(&mut self, what: &str, expression: &str) {
        let end = now() + PATIENCE;
        // An expression fails while the elements that it reads do not exist.
        let tried =
            format!("(() => {{ try {{ return {expression} }} catch {{ return false }} }})()");
        while self.evaluate(&tried) != true {
            let text = self.evaluate("document.body?.innerText");
            assert!(now() < end, "timed out waiting for {what}: {expression}\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "ArrowRight" => (39, ""),
            "/" => (191, "/"),
            _ => (9, ""),
        };
        // Without a text a key is a command of the page: "rawKeyDown".
        for kind in [if text.is_empty() { "rawKeyDown" } else { "keyDown" }, "keyUp"] {
            let params =
                json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code });
            self.send_command("Input.dispatchKeyEvent", params);
        }
    }

    /// Sets the width of the screen, and the light or dark colour scheme.
    pub(crate) fn look(&mut self, width: u32, scheme: &str) {
        let params =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.send_command("Emulation.setDeviceMetricsOverride", params);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.send_command("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// Returns a picture of the whole page, in base64.
    pub(crate) fn picture(&mut self) -> String {
        let params = json!({ "captureBeyondViewport": true });
        let picture = self.send_command("Page.captureScreenshot", params);
        picture["data"].as_str().expect("a picture").to_owned()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The browser ends its own child processes.
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
