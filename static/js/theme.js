// Dark or light, kept in a cookie so that the server sends each page in the right one.

const YEAR_SECONDS = 31536000;
const root = document.documentElement;

export function connectTheme() {
  document.getElementById("theme-button").addEventListener("click", () => {
    const theme = root.dataset.theme === "light" ? "dark" : "light";
    root.dataset.theme = theme;
    document.querySelector("meta[name=color-scheme]").content = theme;
    document.cookie = `algotrader_theme=${theme}; path=/; max-age=${YEAR_SECONDS}; samesite=lax`;
    document.dispatchEvent(new CustomEvent("theme-changed"));
  });
}
