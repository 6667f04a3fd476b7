// The slider between two pictures. Gradio runs this once, with `element`, the sheet's stage; `trigger` and `watch`. The
// range and the radio buttons are the browser's own, and so are their keys.
const slide = () => element.querySelector(".easel-slide");

element.addEventListener("input", (event) => {
  if (event.target.type === "range") slide().style.setProperty("--at", `${event.target.value}%`);
});

element.addEventListener("change", (event) => {
  const radio = event.target;
  if (radio.type !== "radio") return;
  const shown = slide().querySelector(`img[data-side=${radio.dataset.side}]`);
  shown.src = radio.parentElement.querySelector("img").getAttribute("src");
  shown.alt = `${radio.closest("fieldset").querySelector("legend").textContent}: ${radio.getAttribute("aria-label")}`;
  const chosen = (side) => Number(element.querySelector(`input[data-side=${side}]:checked`).value);
  trigger("select", { left: chosen("left"), right: chosen("right") });
});

// The server closes the sheet; until then what lies under it cannot take the focus.
const back = (tries = 100) => {
  if (!document.getElementById("compare")?.offsetHeight) document.querySelector(window.easelOpener)?.focus();
  else if (tries) setTimeout(() => back(tries - 1), 50);
};
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#compare-close")) back();
});
document.addEventListener("keydown", (event) => {
  const sheet = document.getElementById("compare");
  if (event.key !== "Escape" || !sheet || !sheet.offsetHeight) return;
  event.stopImmediatePropagation(); // the gallery may be open under it
  document.getElementById("compare-close").click();
}, true);

const settle = () => {
  element.querySelectorAll(".easel-choices :checked").forEach((one) => one.parentElement.scrollIntoView({ block: "nearest", inline: "center" }));
  document.getElementById("compare")?.scrollTo(0, 0);
  slide()?.querySelector("input").focus({ preventScroll: true });
};
watch("value", settle);

let open = false; // only then it takes the focus
new ResizeObserver(() => {
  if (open !== (open = element.offsetHeight > 0) && open) settle();
}).observe(element);
