//! A headless Chromium, steered through its DevTools protocol over two pipes: no port, no WebSocket, JSON ended by a zero byte.
//!
//! The pipes are descriptors 3 and 4 of the browser; a shell opens two FIFOs as these before it becomes the browser.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::process::Process;

/// A browser on a loaded machine may take its time; never a measurement.
const PATIENCE: Duration = Duration::from_mins(3);
/// Messages of the browser that nobody has looked at yet.
const UNREAD_MAX: usize = 10_000;

#[derive(Debug)]
pub struct Browser {
    _process: Process,
    commands: File,
    answers: Receiver<Value>,
    events: VecDeque<Value>,
    last_id: u64,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
    pub scripts: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { width: 1280, height: 900, dark: false, scripts: true }
    }
}

/// One tab.
#[derive(Clone, Debug)]
pub struct Tab {
    session: String,
}

impl Browser {
    /// `None` where the machine has no Chromium.
    pub fn start(directory: &Path) -> Option<Self> {
        if !Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return None;
        }
        std::fs::create_dir_all(directory).expect("a directory for the browser");
        let (input, output) = (directory.join("commands"), directory.join("answers"));
        let made = Command::new("mkfifo").arg(&input).arg(&output).status().expect("mkfifo runs");
        assert!(made.success(), "mkfifo failed");
        let mut command = Command::new("sh");
        let script = "exec chromium --headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
                      --disable-component-update --disable-dev-shm-usage --remote-debugging-pipe --user-data-dir=\"$1\" about:blank \
                      3<\"$2\" 4>\"$3\"";
        command.args(["-c", script, "sh"]).arg(directory.join("profile")).arg(&input).arg(&output);
        let process = Process::start("chromium", &mut command, &directory.join("chromium.log"));
        // Each waits for the other end.
        let commands = OpenOptions::new().write(true).open(&input).expect("the browser reads commands");
        let reader = BufReader::new(File::open(&output).expect("the browser writes answers"));
        let (send, answers) = sync_channel(UNREAD_MAX);
        std::thread::spawn(move || {
            for message in reader.split(0).map_while(Result::ok) {
                let value = serde_json::from_slice(&message).unwrap_or(Value::Null);
                if send.send(value).is_err() {
                    return;
                }
            }
        });
        Some(Self { _process: process, commands, answers, events: VecDeque::new(), last_id: 0 })
    }

    fn call(&mut self, session: Option<&str>, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("the browser takes commands");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.next(deadline).unwrap_or_else(|| panic!("the browser does not answer {method}"));
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push_back(message);
        }
    }

    fn next(&mut self, deadline: Instant) -> Option<Value> {
        self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// An empty tab that looks this way.
    pub fn tab(&mut self, look: Look) -> Tab {
        let target = self.call(None, "Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.call(None, "Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        let tab = Tab { session: attached["sessionId"].as_str().expect("a session").to_owned() };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.ask(&tab, &format!("{domain}.enable"), &json!({}));
        }
        let metrics = json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600 });
        self.ask(&tab, "Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if look.dark { "dark" } else { "light" };
        self.ask(&tab, "Emulation.setEmulatedMedia", &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }));
        self.ask(&tab, "Emulation.setScriptExecutionDisabled", &json!({ "value": !look.scripts }));
        tab
    }

    fn ask(&mut self, tab: &Tab, method: &str, params: &Value) -> Value {
        self.call(Some(&tab.session), method, params)
    }

    /// Goes there and waits until it is loaded.
    pub fn go(&mut self, tab: &Tab, url: &str) {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        let gone = self.ask(tab, "Page.navigate", &json!({ "url": url }));
        assert!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        let deadline = Instant::now() + PATIENCE;
        let is_loaded = |event: &Value| event["method"] == "Page.loadEventFired" && event["sessionId"] == tab.session.as_str();
        while !self.events.iter().any(is_loaded) {
            let event = self.next(deadline).unwrap_or_else(|| panic!("{url} does not load"));
            self.events.push_back(event);
        }
    }

    /// What an expression comes to, in the page (also where its own scripts are off).
    pub fn eval(&mut self, tab: &Tab, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.ask(tab, "Runtime.evaluate", &params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// What the console of the tab shows as errors, and exceptions, so far.
    pub fn errors(&mut self, tab: &Tab) -> Vec<String> {
        self.eval(tab, "0"); // whatever was said before is here then
        let of_tab = self.events.iter().filter(|event| event["sessionId"] == tab.session.as_str());
        let error = |event: &Value| match event["method"].as_str()? {
            "Log.entryAdded" if event["params"]["entry"]["level"] == "error" => Some(event["params"]["entry"].to_string()),
            "Runtime.exceptionThrown" => Some(event["params"]["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if event["params"]["type"] == "error" => Some(event["params"].to_string()),
            _ => None,
        };
        of_tab.filter_map(error).collect()
    }

    /// Every address the tab asked for so far.
    pub fn requests(&mut self, tab: &Tab) -> Vec<String> {
        self.eval(tab, "0");
        let of_tab = self.events.iter().filter(|event| event["sessionId"] == tab.session.as_str());
        let sent = of_tab.filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }

    /// The whole page as a PNG.
    pub fn screenshot(&mut self, tab: &Tab, file: &Path) {
        std::fs::create_dir_all(file.parent().expect("a file in a directory")).expect("a directory for screenshots");
        let shot = self.ask(tab, "Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }));
        let png = BASE64_STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, png).expect("the picture is written");
    }
}
