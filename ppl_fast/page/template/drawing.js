// The bar above: how many links, whether numbers, and which keypoint is picked out, in all drawings at once.

function redrawAll() {
  for (const redraw of redraws) redraw();
}

function startDrawing() {
  if (page.links.length) {
    const links = slider("links-shown", page.links.length, drawing.links, (count) => {
      drawing.links = count;
      redrawAll();
      return `${count} of ${page.links.length}`;
    });
    links.refresh();
  } else {
    byId("links-shown").closest(".control").remove();
  }
  byId("numbers").addEventListener("change", (event) => {
    drawing.numbers = event.target.checked;
    redrawAll();
  });
  const buttons = page.colours.map((colour, i) => {
    const dot = element("i", { ariaHidden: "true" });
    dot.style.background = colour;
    const button = element("button", { type: "button", ariaPressed: "false" }, dot, NAMES[i]);
    button.setAttribute("aria-label", page.names ? `Keypoint ${i}, ${NAMES[i]}` : `Keypoint ${i}`);
    button.addEventListener("click", () => {
      drawing.picked = drawing.picked === i ? -1 : i;
      buttons.forEach((each, j) => each.setAttribute("aria-pressed", String(j === drawing.picked)));
      redrawAll();
    });
    return button;
  });
  byId("legend").append(...buttons.map((button) => element("li", {}, button)));
}
