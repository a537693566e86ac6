// A request to the API that asks for something to be done.

/** POSTs to the address; returns whether it was accepted, and what to tell the user if it was not. */
export async function call(url, body = undefined) {
  const headers = { "X-CSRFToken": document.body.dataset.csrf };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    const response = await fetch(url, { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const answer = await response.json().catch(() => ({}));
    return { ok: response.ok, message: answer.detail ?? `The server answered ${response.status}.`, answer };
  } catch {
    return { ok: false, message: "The server cannot be reached. Nothing was done.", answer: {} };
  }
}
