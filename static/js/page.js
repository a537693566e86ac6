// What every page can do: copy a command, follow a filter without a submit button.

import { toast } from "./toast.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    toast("Copied to the clipboard.");
  } catch {
    toast("The browser does not allow copying here; select the text instead.", "down");
  }
});
