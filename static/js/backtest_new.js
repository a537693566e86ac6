// Another strategy has other settings: the form is loaded again, with symbols kept.

document.querySelector("select[data-reload]").addEventListener("change", ({ target }) => {
  const symbols = document.getElementById("symbols").value;
  location.search = new URLSearchParams({ strategy: target.value, symbols });
});
