// Requests to the director, with the token that it may ask for.

import { $ } from "./dom.js";

/** A director that does not answer a question in this time is gone, or as good as that. */
const ANSWER_MS = 2500;

let token = sessionStorage.getItem("token") || "";

/** Sends a request below `/api/v1`; returns the JSON of the answer, or `null` if it has none. */
export async function ask(path, { method = "GET", body, operator } = {}) {
  const headers = { "content-type": "application/json" };
  const tried = token;
  if (tried) headers.authorization = `Bearer ${tried}`;
  if (operator) headers["lvs-operator"] = operator;
  const answer = await fetch(`/api/v1${path}`, {
    method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(ANSWER_MS),
  });
  if (answer.status === 401) {
    // The user may have entered another token while this answer was on its way.
    if (tried === token) await enterToken();
    return ask(path, { method, body, operator });
  }
  const text = await answer.text();
  const value = text ? JSON.parse(text) : null;
  if (answer.ok) return value;
  const error = new Error((value && value.error) || `${answer.status}`);
  error.status = answer.status;
  throw error;
}

/** Asks the user for the token: one dialog, however many requests wait for it. */
let entered = null;
function enterToken() {
  entered ??= new Promise((done) => {
    $("enter").addEventListener("close", () => {
      token = $("token").value;
      sessionStorage.setItem("token", token);
      entered = null;
      done();
    }, { once: true });
    $("enter").showModal();
  });
  return entered;
}

/** Returns whether requests wait for the user to enter the token. */
export const waitsForToken = () => entered !== null;

export const servicePath = (service) => `/services/${encodeURIComponent(service)}`;

export const serverPath = (service, address) => `${servicePath(service)}/servers/${encodeURIComponent(address)}`;
