// How the models are, in the status line; the light or dark choice; and the buttons inside the chat with the editor that
// two of them open; and scores that come later. Everything else is Gradio's.
(() => {
  const kept = localStorage.getItem("easel-theme");
  const dark = kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const paint = (on) => document.body && document.body.classList.toggle("dark", on);
  const root = location.pathname.replace(/(zh\/?)?(improve\/?)?$/, "");

  async function ask() {
    const line = document.getElementById("status");
    if (!line) return setTimeout(ask, 250);
    let state = "gone", text = line.dataset.gone, error = "";
    try {
      const reply = await fetch(root + "health", { cache: "no-store" });
      const answer = await reply.json();
      const out = reply.headers.get("x-easel-session") === "none";
      state = out ? "failed" : answer.status;
      text = out ? line.dataset.ended : { "warming up": line.dataset.warming, failed: line.dataset.failed }[state] || "";
      error = out ? "" : answer.error || "";
      if (state === "warming up" && answer.served_by === "transformers") error = line.dataset.slower;
    } catch (_) { /* the server is gone */ }
    line.textContent = [text, error].filter(Boolean).join(" ");
    line.dataset.state = state;
    line.hidden = state === "ready";
    setTimeout(ask, state === "ready" ? 8000 : 1500);
  }

  // On a phone the shelf covers the page: it begins closed. A click before Gradio is alive does nothing; try again.
  function tuck(tries = 60) {
    const shelf = document.getElementById("shelf");
    const closed = () => shelf && !shelf.classList.contains("open");
    if (closed()) return;
    if (shelf) shelf.querySelector(".toggle-button").click();
    // Who opens it once it is closed wants it open: no later try may close that.
    setTimeout(() => { if (tries && !closed()) setTimeout(() => tuck(tries - 1), 330); }, 20);
  }

  // The box takes input as soon as Gradio is alive; on a phone the keyboard would then hide the page.
  function focus(tries = 100) {
    const box = document.querySelector("#box textarea:enabled");
    if (box && document.activeElement === document.body) box.focus();
    else if (!box && tries) setTimeout(() => focus(tries - 1), 100);
  }

  // The server hears of it by the bridge, see web.py. What it refuses stays in the editor; else the message is drawn anew,
  // and the focus goes to the button in the same place or to the box.
  function act(button, editor) {
    const { name, value: turn, title } = button;
    const alike = () => [...document.querySelectorAll(`#chat button[name=${name}]`)].filter((one) => one.title === title);
    const place = alike().indexOf(button);
    const text = editor ? editor.querySelector("textarea").value : "";
    document.dispatchEvent(new CustomEvent("easel", { detail: { do: name, turn, text } }));
    if (name === "compare") return; // the sheet that opens takes the focus
    const settle = (tries) => {
      if (button.isConnected && button.value === turn) return tries && setTimeout(() => settle(tries - 1), 100);
      if (editor) editor.remove();
      if (document.activeElement !== document.body) return;
      const next = name === "branch" && alike()[place];
      if (next && !next.disabled) next.focus();
      else if (innerWidth >= 700) document.querySelector("#box textarea")?.focus();
    };
    settle(100);
  }

  // In the message, with its own words in it. Enter sends, Shift and Enter begin a line, Escape leaves.
  function edit(button) {
    const tools = button.closest(".easel-tools");
    const open = tools.parentElement.querySelector(".easel-editor");
    if (open) return open.querySelector("textarea").focus();
    const form = document.querySelector("#bridge .easel-editor").cloneNode(true);
    const area = form.querySelector("textarea");
    const fit = () => { area.style.height = "auto"; area.style.height = `${area.scrollHeight + 2}px`; };
    const leave = () => { form.remove(); button.focus(); };
    area.value = tools.querySelector(".easel-raw").textContent;
    area.setAttribute("aria-label", button.title);
    form.querySelector("[type=submit]").textContent = form.dataset[button.name];
    form.hidden = false;
    form.addEventListener("submit", (event) => { event.preventDefault(); act(button, form); });
    form.querySelector("[name=cancel]").addEventListener("click", leave);
    form.addEventListener("keydown", (event) => {
      event.stopPropagation(); // Gradio has keys of its own
      if (event.isComposing) return; // the keys are the input method's
      if (event.key === "Escape") leave();
      else if (event.key === "Enter" && event.target === area && !event.shiftKey) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    area.addEventListener("input", fit);
    tools.before(form);
    fit();
    area.focus();
    form.scrollIntoView({ block: "nearest" });
  }

  // Gradio's chatbot lets no aria attribute through: what a screen reader says of a button without words is set here.
  function name() {
    document.querySelectorAll("#chat .easel-icon:not([aria-label])").forEach((one) => one.setAttribute("aria-label", one.title));
  }

  // Scores come apart from their pictures, see show_scores in view.py.
  function score() {
    document.querySelectorAll("#scored [data-turn]").forEach((one) =>
      document.querySelectorAll(`#chat .easel-of-${one.dataset.turn}`).forEach((place) => {
        if (place.textContent !== one.textContent) place.textContent = one.textContent;
      }));
  }

  document.addEventListener("click", (event) => {
    // What the focus goes back to from the comparison, see compare.js. The chat may be drawn anew meanwhile.
    const opener = event.target.closest?.("#chat button[name=compare], #gallery-compare");
    if (opener) window.easelOpener = opener.id ? `#${opener.id}` : `#chat button[name=compare][value="${opener.value}"]`;
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("#chat button[name][value]");
    if (!button) return;
    if (button.name === "redraw" || button.name === "reword") edit(button);
    else act(button);
  });
  // What is chosen from the shelf is behind it there.
  document.addEventListener("change", (event) => {
    if (innerWidth < 700 && event.target.closest(".easel-list")) tuck();
  });
  document.addEventListener("click", (event) => {
    if (innerWidth < 700 && event.target.closest?.("#new, #gallery-jump")) tuck();
    if (!event.target.closest?.("[data-easel=theme]")) return;
    const on = !document.body.classList.contains("dark");
    paint(on);
    localStorage.setItem("easel-theme", on ? "dark" : "light");
  });
  function begin() {
    paint(dark);
    setTimeout(() => paint(dark), 400); // Gradio paints its own choice while it mounts
    ask();
    new MutationObserver(() => { name(); score(); }).observe(document.body, { childList: true, subtree: true });
    if (innerWidth < 700) tuck();
    else focus();
  }

  // Gradio may run this before the page is parsed, or long after.
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
