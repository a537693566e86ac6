// Lists and tables made of a <template>, whose elements keep their identity while their contents change.

/** The elements with data-field in a part of the page, by name. */
export function fields(root) {
  return Object.fromEntries([...root.querySelectorAll("[data-field]")].map((element) => [element.dataset.field, element]));
}

/** A copy of the template's one element. */
export function copyOf(templateId) {
  return document.getElementById(templateId).content.firstElementChild.cloneNode(true);
}

/** Sets text only when it differs, so that selections and animations survive. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Keeps one row per item in `body`, in the items' order.
 * `key(item)` tells items apart, `fill(fields, item, row)` writes an item into its row.
 */
export function keepRows(body, templateId, items, key, fill) {
  const rows = new Map([...body.children].map((row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    const name = key(item);
    let row = rows.get(name);
    if (!row) {
      row = copyOf(templateId);
      row.dataset.key = name;
    }
    rows.delete(name);
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
    fill(fields(row), item, row);
  });
  for (const row of rows.values()) row.remove();
}

/** Shows a changed price with a short green or red glow. */
export function flash(element, before, now) {
  if (before === undefined || before === now) return;
  element.classList.remove("flash-up", "flash-down");
  void element.offsetWidth; // lets the animation start again
  element.classList.add(now > before ? "flash-up" : "flash-down");
}
