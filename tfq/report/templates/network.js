// The network: what its colours mean, and the layer that is chosen.
{
  const details = JSON.parse(document.getElementById("layers-data").textContent);
  const network = document.querySelector(".network");
  const graph = network.querySelector(".graph");
  const panel = document.getElementById("chosen");
  const buttons = [...graph.querySelectorAll("button")];
  const narrow = matchMedia("(max-width: 52rem)"); // where the panel covers a part of the page
  let last = buttons[0];

  function drawing(name, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  // Bars are as high as the logarithm of what they count, so that single values show; dashed are the ends of the grid.
  function histogram({ ends: [first, end], counts }, grid) {
    const [low, high] = [Math.min(first, grid[0]), Math.max(end, grid[1])];
    const [width, height] = [340, 110];
    const x = (value) => ((value - low) / (high - low || 1)) * width;
    const most = Math.log1p(Math.max(...counts));
    const step = (end - first) / counts.length;
    const say = (value) => Number(value.toPrecision(4));
    const label = `Histogram of the values seen, from ${say(first)} to ${say(end)}; the grid reaches from ${say(grid[0])} to ${say(grid[1])}`;
    const svg = drawing("svg", { viewBox: `-2 0 ${width + 4} ${height}`, role: "img", "aria-label": label });
    counts.forEach((count, i) => {
      const tall = (Math.log1p(count) / most) * (height - 4);
      svg.append(drawing("rect", { x: x(first + i * step), y: height - tall, width: Math.max(1, x(first + step) - x(first) - 0.5), height: tall }));
    });
    for (const value of grid) svg.append(drawing("line", { x1: x(value), x2: x(value), y1: 0, y2: height }));
    return svg;
  }

  function show(button) {
    last.setAttribute("aria-pressed", "false");
    last = button;
    button.setAttribute("aria-pressed", "true");
    const { name, kind, facts = {}, ranges, grid, histogram: seen, cause } = details[buttons.indexOf(button)];
    const close = element("button", "Close", { type: "button", class: "close" });
    close.addEventListener("click", hide);
    panel.replaceChildren(close, element("h3", name), element("p", kind, { class: "faint" }));
    if (cause) panel.append(element("p", cause, { class: "warning" }));
    if (seen) panel.append(histogram(seen, grid), element("p", "Its output. Height: logarithm of the count; dashed: ends of the grid.", { class: "faint" }));
    panel.append(list({ ...ranges, ...facts }));
    panel.classList.add("open");
    panel.scrollTop = 0;
  }

  function hide() {
    panel.classList.remove("open");
    last.focus();
  }

  function reach(button) {
    for (const other of buttons) other.tabIndex = -1;
    button.tabIndex = 0;
    button.focus();
  }

  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  graph.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    const place = buttons.indexOf(document.activeElement) + steps[event.key];
    reach(buttons[Math.max(0, Math.min(buttons.length - 1, place))]);
    event.preventDefault();
  });
  graph.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    reach(button);
    show(button);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && narrow.matches && panel.classList.contains("open")) hide();
  });
  network.addEventListener("change", (event) => {
    network.dataset.by = event.target.value;
    for (const legend of network.querySelectorAll(".legend")) legend.hidden = legend.dataset.of !== event.target.value;
  });
  buttons.forEach((button, i) => { button.tabIndex = i ? -1 : 0; });
  if (!narrow.matches) show(buttons[network.dataset.first]);
}
