// Requests to the API that ask for something to be done.

const LOOK_MS = 300;
const LONGEST_WAIT_MS = 15000;

/** Leaves for the login, which leads back here. */
export const toLogin = () => location.assign(`/login/?next=${encodeURIComponent(location.pathname + location.search)}`);

/** As `fetch`; when the login has ended, the page leaves for the login. */
export async function request(url, options = undefined) {
  const response = await fetch(url, options);
  if (response.status === 401) toLogin();
  return response;
}

/** POSTs to the address; returns whether it was accepted, and what to tell the user if it was not. */
export async function call(url, body = undefined) {
  const headers = { "X-CSRFToken": document.body.dataset.csrf };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    const response = await request(url, { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const answer = await response.json().catch(() => ({}));
    return { ok: response.ok, message: inWords(answer.detail) ?? `The server answered ${response.status}.`, answer };
  } catch {
    return { ok: false, message: "The server cannot be reached. Nothing was done.", answer: {} };
  }
}

/** As `call`, for a request to the engine: returns when the engine has taken it up or refused it. */
export async function ask(url, body = undefined) {
  const asked = await call(url, body);
  const until = Date.now() + LONGEST_WAIT_MS;
  while (asked.ok && Date.now() < until) {
    try {
      const state = await (await request(`/api/requests/${asked.answer.id}`)).json();
      if (state.done_at) return { ok: !state.error, message: `Refused: ${state.error}.`, answer: state };
    } catch {
      // the next look tells
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  return asked.ok ? { ok: false, message: "The engine has not answered; look at what it does before you ask again.", answer: {} } : asked;
}

/** Validation errors come as a list. */
function inWords(detail) {
  return Array.isArray(detail) ? detail.map((one) => one.msg).join("; ") : detail;
}
