// Changes by the operator: a dialog asks, and the answer of the director is shown.

import { ask, serverPath } from "./api.js";
import { $, setText, showText } from "./dom.js";
import { serverName } from "./format.js";

const FIELDS = ["weight", "max_connections", "resume_connections", "tier"];

/** Shows a dialog, and returns whether the user confirms. */
function confirmed(question) {
  setText($("question"), question);
  $("operator").value = localStorage.getItem("operator") || "";
  $("ask").returnValue = "no";
  $("ask").showModal();
  return new Promise((done) => {
    $("ask").addEventListener("close", () => done($("ask").returnValue === "yes"), { once: true });
  });
}

async function send(service, server, body, refresh) {
  const operator = $("operator").value.trim();
  localStorage.setItem("operator", operator);
  const done = Object.entries(body).map(([key, value]) => `${key} ${value}`).join(", ");
  try {
    const answer = await ask(serverPath(service, server.address), { method: "PATCH", body, operator });
    const note = answer && answer.note ? ` Note: ${answer.note}.` : "";
    showMessage(`${serverName(server)} of ${service}: ${done}.${note}`, false);
  } catch (error) {
    showMessage(`${serverName(server)} of ${service} is not changed: ${error.message}`, true);
  }
  await refresh();
}

let hiding;
function showMessage(text, isError) {
  showText($("message"), text);
  $("message").className = isError ? "alert" : "done";
  clearTimeout(hiding);
  if (!isError) hiding = setTimeout(() => showText($("message"), ""), 15000);
}

// Not a button of the form: Enter in a field presses the first one of those.
$("no").addEventListener("click", () => $("ask").close("no"));

/** Asks for another administrative state of a server, and sets it. */
export async function changeState(service, server, state, refresh) {
  const question = {
    up: `Let ${serverName(server)} of ${service} get new connections again?`,
    drain: `Drain ${serverName(server)} of ${service}? It gets no new connections; open connections continue.`,
    down: `Disable ${serverName(server)} of ${service}? It is out of service, whatever its health.`,
  }[state];
  $("fields").hidden = true;
  const answer = confirmed(question);
  $("yes").focus();
  if (await answer) await send(service, server, { state }, refresh);
}

/** Asks for another weight and other limits of a server, and sets those that the user has changed. */
export async function editServer(service, server, refresh) {
  $("fields").hidden = false;
  for (const field of FIELDS) $(field).value = server[field];
  const answer = confirmed(`Change ${serverName(server)} of ${service}:`);
  $("weight").select();
  if (!(await answer)) return;
  const changed = FIELDS.filter((field) => $(field).value !== "" && Number($(field).value) !== server[field]);
  if (!changed.length) return;
  await send(service, server, Object.fromEntries(changed.map((field) => [field, Number($(field).value)])), refresh);
}
