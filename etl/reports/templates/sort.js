// Tables sort by the column whose head is clicked, or chosen with Enter: most or A first, then the other way.
for (const head of document.querySelectorAll("thead th")) {
  head.tabIndex = 0;
  head.title = "Sort by this column";
  const sort = () => {
    const table = head.closest("table");
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const text = row.cells[head.cellIndex].textContent.replace(/[\s\u202f]/g, "");
      const number = parseFloat(text.replace(/^[<>\u2264\u2265]/, ""));
      return Number.isNaN(number) ? text.toLowerCase() : number;
    };
    const sign = down ? 1 : -1;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      return sign * (typeof x === "number" ? y - x : x.localeCompare(y));
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
}
