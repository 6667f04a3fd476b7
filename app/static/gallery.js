// The gallery's clicks and keys. Gradio runs this whenever the list comes into the page, with `element`, the list;
// `trigger` and `watch`. What listens to the whole document is set up once.
element.addEventListener("click", (event) => {
  const tile = event.target.closest("[data-place]");
  if (tile) trigger("select", { place: Number(tile.dataset.place) });
});

const shared = (window.easelGallery ||= { begin() {
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
    if (event.target.closest("#gallery-back")) this.place = large()?.dataset.place;
    if (event.target.closest("#gallery-jump")) find(large()?.dataset.picture);
  });

  // The chat scrolls to its end when it is filled: after that, to the picture.
  function find(picture, tries = 40) {
    const shown = document.querySelector(`#chat .easel-picture img[src*="${picture}"]`);
    if (shown) for (const wait of [100, 500, 1000]) setTimeout(() => shown.scrollIntoView({ block: "center" }), wait);
    else if (tries) setTimeout(() => find(picture, tries - 1), 200);
  }
  this.begin = () => {};
} });
shared.begin();

// Back from a picture, the list is where it was; a new page of it begins at its top.
const settle = () => {
  const tile = element.querySelector(`[data-place="${shared.place}"]`);
  shared.place = undefined;
  if (tile) tile.focus();
  else document.getElementById("gallery")?.scrollTo(0, 0);
};
watch("value", settle);
settle();

const field = document.querySelector("#gallery-search textarea");
if (field && innerWidth >= 700 && document.activeElement === document.body) field.focus();
