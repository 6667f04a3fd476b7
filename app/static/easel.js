// How the models are, in the status line; and the light or dark choice. Everything else is Gradio's.
(() => {
  const kept = localStorage.getItem("easel-theme");
  const dark = kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const paint = (on) => document.body && document.body.classList.toggle("dark", on);
  const root = location.pathname.replace(/zh\/?$/, "");

  async function ask() {
    const line = document.getElementById("status");
    if (!line) return setTimeout(ask, 250);
    let state = "gone", text = line.dataset.gone, error = "";
    try {
      const answer = await (await fetch(root + "health", { cache: "no-store" })).json();
      state = answer.status;
      text = { "warming up": line.dataset.warming, failed: line.dataset.failed }[state] || "";
      error = answer.error || "";
    } catch (_) { /* the server is gone */ }
    line.textContent = [text, error].filter(Boolean).join(" ");
    line.dataset.state = state;
    line.hidden = state === "ready";
    setTimeout(ask, state === "ready" ? 8000 : 1500);
  }

  // On a phone the shelf covers the page: it begins closed. A click before Gradio is alive does nothing; try again.
  function tuck(tries = 60) {
    const shelf = document.getElementById("shelf");
    if (shelf && !shelf.classList.contains("open")) return;
    if (shelf) shelf.querySelector(".toggle-button").click();
    if (tries) setTimeout(() => tuck(tries - 1), 350);
  }

  // The box takes input as soon as Gradio is alive; on a phone the keyboard would then hide the page.
  function focus(tries = 100) {
    const box = document.querySelector("#box textarea:enabled");
    if (box && document.activeElement === document.body) box.focus();
    else if (!box && tries) setTimeout(() => focus(tries - 1), 100);
  }

  // What is chosen from the shelf is behind it there.
  document.addEventListener("change", (event) => {
    if (innerWidth < 700 && event.target.closest(".easel-list")) tuck();
  });
  document.addEventListener("click", (event) => {
    if (innerWidth < 700 && event.target.closest && event.target.closest("#new, #gallery-jump")) tuck();
    if (!event.target.closest || !event.target.closest("[data-easel=theme]")) return;
    const on = !document.body.classList.contains("dark");
    paint(on);
    localStorage.setItem("easel-theme", on ? "dark" : "light");
  });
  function begin() {
    paint(dark);
    setTimeout(() => paint(dark), 400); // Gradio paints its own choice while it mounts
    ask();
    if (innerWidth < 700) tuck();
    else focus();
  }

  // Gradio may run this before the page is parsed, or long after.
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
