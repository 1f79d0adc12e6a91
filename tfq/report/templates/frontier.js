// The frontier: what the point under the mouse, or the chosen one, is.
{
  const details = new Map(JSON.parse(document.getElementById("points-data").textContent).map((point) => [point.name, point]));
  const panel = document.getElementById("chosen");
  const points = [...document.querySelectorAll("[data-point]")];
  let chosen = "";

  function show(name) {
    if (!details.has(name)) return;
    const { facts, command } = details.get(name);
    panel.replaceChildren(element("h3", name), element("p", "A run with this budget:", { class: "faint" }), element("code", command), list(facts));
  }

  function choose(point) {
    chosen = point.dataset.point;
    for (const other of points) other.setAttribute("aria-pressed", other.dataset.point === chosen);
    show(chosen);
  }

  for (const point of points) {
    point.addEventListener("click", () => choose(point));
    point.addEventListener("mouseenter", () => show(point.dataset.point));
    point.addEventListener("mouseleave", () => show(chosen));
    point.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      choose(point);
      event.preventDefault();
    });
  }
  choose(points.find((point) => point.classList.contains("best")));
}
