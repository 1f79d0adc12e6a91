"use strict";
// Tables: a click on a header sorts, a search filters, and a box that scrolls sideways says so.

function number(text) {
  const found = /^[-+]?[\d,]*\.?\d+(e[-+]?\d+)?/.exec(text.trim());
  return found ? parseFloat(found[0].replaceAll(",", "")) : NaN;
}

function sortBy(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
  const numeric = rows.every(({ text }) => text === "" || !Number.isNaN(number(text)));
  const compared = (a, b) => {
    if (a.text === "" || b.text === "") return (a.text === "") - (b.text === ""); // what is empty stays last
    const order = numeric ? number(a.text) - number(b.text) : a.text.localeCompare(b.text, "en", { numeric: true });
    return ascending ? order : -order;
  };
  body.append(...rows.sort(compared).map(({ row }) => row));
  for (const header of table.tHead.rows[0].cells) header.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sortBy(table, column, header.getAttribute("aria-sort") !== "ascending"));
    header.replaceChildren(button);
  });
}

for (const form of document.querySelectorAll(".filter")) {
  const rows = [...document.getElementById(form.dataset.table).tBodies[0].rows];
  const told = form.querySelector("output");
  const filter = () => {
    const search = form.querySelector("input").value.toLowerCase();
    const choices = [...form.querySelectorAll("select")].filter((select) => select.value);
    let shown = 0;
    for (const row of rows) {
      const fits = row.textContent.toLowerCase().includes(search)
        && choices.every((select) => row.cells[select.dataset.column].textContent.trim() === select.value);
      row.hidden = !fits;
      shown += fits;
    }
    told.textContent = `${shown} of ${rows.length} layers`;
  };
  form.addEventListener("input", filter);
  form.hidden = false;
  filter();
}

const watched = new ResizeObserver((entries) => {
  for (const { target } of entries) target.classList.toggle("overflows", target.scrollWidth > target.clientWidth + 1);
});
for (const box of document.querySelectorAll(".scroll")) watched.observe(box);
