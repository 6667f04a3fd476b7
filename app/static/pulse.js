// Gradio's page may go on showing something old, for good and without an error: a busy browser swallows an update of one
// component or of all (sveltejs/svelte#18524 and #18761 are such faults). Each update of the chat has a beat (Page._chat in
// web.py): where one has come and is not shown, the page asks for the chat once more; does that not help, it loads itself anew.
(() => {
  const ASK = 3, LOAD = 10, PAUSE = 20000; // after so many looks, a second apart; milliseconds between two loadings
  let heard = { beat: 0, look: "", messages: 0 };
  let alive = false; // the box takes input, or did

  const plain = window.fetch;
  window.fetch = async (...request) => {
    const answer = await plain(...request);
    if (String(request[0]?.url ?? request[0]).includes("/queue/data")) listen(answer.clone());
    return answer;
  };

  async function listen(answer) {
    try {
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = "", part; !(part = await reader.read()).done; text = text.slice(-150)) {
        text += part.value;
        for (const [, beat, look, messages] of text.matchAll(/<i data-beat='(\d+)' data-look='(\w*)' data-messages='(\d+)'>/g))
          heard = { beat: +beat, look, messages: +messages };
      }
    } catch (_) { /* no stream, or one that was cut: Gradio deals with that */ }
  }

  function shown() {
    const beats = document.querySelectorAll("#chat .easel-beat");
    alive ||= document.querySelector("#box textarea:enabled") !== null;
    if (heard.beat && !alive) return 0; // it is as it came with the page
    return beats.length ? Number(beats[beats.length - 1].title) : heard.messages ? 0 : heard.beat;
  }

  function watch(before, late) {
    const now = shown(), address = new URL(location.href);
    late = now !== heard.beat && now === before && document.visibilityState === "visible" ? late + 1 : 0;
    if (late === ASK) document.dispatchEvent(new CustomEvent("easel", { detail: { do: "look", turn: "", text: "" } }));
    else if (late >= LOAD && Date.now() - Number(sessionStorage.getItem("easel-loaded")) > PAUSE) return load();
    if (heard.beat && address.searchParams.has("look")) {
      address.searchParams.delete("look"); // loaded by hand later, the page shows what was looked at then
      history.replaceState(history.state, "", address);
    }
    requestAnimationFrame(() => setTimeout(watch, 1000, now, late)); // a page that draws nothing yet is only slow
  }

  // With the same conversation, and with what was written but not sent.
  function load() {
    sessionStorage.setItem("easel-loaded", Date.now());
    sessionStorage.setItem("easel-draft", document.querySelector("#box textarea")?.value ?? "");
    const address = new URL(location.href);
    address.searchParams.set("look", heard.look);
    location.replace(address);
  }

  function restore(tries = 600) {
    const draft = sessionStorage.getItem("easel-draft"), box = document.querySelector("#box textarea:enabled");
    if (!draft) return;
    if (!box) return tries && setTimeout(restore, 100, tries - 1);
    sessionStorage.removeItem("easel-draft");
    if (box.value) return;
    box.value = draft;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  restore();
  watch(0, 0);
})();
