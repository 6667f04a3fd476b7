// The gallery's clicks and keys. Gradio runs this once, with `element`, the list; `trigger` and `watch`.
let place; // of the picture that was shown large

element.addEventListener("click", (event) => {
  const tile = event.target.closest("[data-place]");
  if (tile) trigger("select", { place: Number(tile.dataset.place) });
});

const press = (name) => document.querySelector(`#gallery-${name}:enabled`)?.click();
const large = () => {
  const shown = document.querySelector("#gallery-one .easel-large");
  return shown && shown.offsetParent ? shown : null;
};

document.addEventListener("keydown", (event) => {
  const sheet = document.getElementById("gallery");
  if (document.getElementById("compare")?.offsetHeight) return; // it lies over the gallery, and has keys of its own
  if (!sheet || !sheet.offsetHeight || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape") press(large() ? "back" : "close");
  else if (!large() || event.target.matches("input, textarea")) return;
  else if (event.key === "ArrowLeft") press("previous");
  else if (event.key === "ArrowRight") press("next");
});

document.addEventListener("click", (event) => {
  if (event.target.closest("#gallery-back")) place = large()?.dataset.place;
  if (event.target.closest("#gallery-jump")) find(large()?.dataset.picture);
});

// The chat scrolls to its end when it is filled: after that, to the picture.
function find(picture, tries = 40) {
  const shown = document.querySelector(`#chat .easel-picture img[src*="${picture}"]`);
  if (shown) for (const wait of [100, 500, 1000]) setTimeout(() => shown.scrollIntoView({ block: "center" }), wait);
  else if (tries) setTimeout(() => find(picture, tries - 1), 200);
}

// Back from a picture, the list is where it was; a new page of it begins at its top.
const settle = () => {
  if (!element.offsetHeight) return;
  const tile = element.querySelector(`[data-place="${place}"]`);
  place = undefined;
  if (tile) tile.focus();
  else document.getElementById("gallery")?.scrollTo(0, 0);
};
watch("value", settle);

let open = false;
new ResizeObserver(() => {
  if (open === (open = element.offsetHeight > 0) || !open) return; // it has just come into sight, or it is gone
  settle();
  const field = document.querySelector("#gallery-search textarea");
  if (innerWidth >= 700 && document.activeElement === document.body) field.focus();
}).observe(element);
