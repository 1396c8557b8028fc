// The scoreboard's table: a button in each head sorts, a list chooses columns, boxes hide rows.
(() => {
  const table = document.querySelector("table.scoreboard");
  if (!table) return;
  const [groups, heads] = table.tHead.rows;
  const body = table.tBodies[0];
  const frame = table.parentElement;
  const said = Object.assign(document.createElement("p"), { className: "board-said" });
  said.setAttribute("role", "status");

  // The value of a row in a column, the better the larger; what is not defined comes last.
  const merit = (row, column) => {
    const cell = row.cells[column];
    if (!("value" in cell.dataset)) return null;
    const value = Number(cell.dataset.value);
    const better = heads.cells[column].dataset.better;
    return better === "high" ? value : better === "low" ? -value : -Math.abs(value);
  };

  const sort = (column, turn) => {
    const rows = [...body.rows].map((row, place) => ({ row, place }));
    rows.sort((a, b) => {
      if (column === 0) return turn * (a.row.dataset.place - b.row.dataset.place);
      const [x, y] = [merit(a.row, column), merit(b.row, column)];
      if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place;
      return turn * (y - x) || a.place - b.place;
    });
    body.append(...rows.map(({ row }) => row));
  };

  [...body.rows].forEach((row, place) => { row.dataset.place = place; });
  const group = [null];
  [...groups.cells].slice(1).forEach((cell) => {
    for (let k = 0; k < cell.colSpan; k += 1) group.push(cell.textContent);
  });
  [...heads.cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    if (head.title) button.title = head.title;
    head.removeAttribute("title");
    head.append(button);
    button.addEventListener("click", () => {
      const again = head.dataset.order === "best", { better } = head.dataset;
      [...heads.cells].forEach((other) => {
        other.removeAttribute("aria-sort");
        delete other.dataset.order;
      });
      head.dataset.order = again ? "worst" : "best";
      const rising = (better === "high") === again ? "ascending" : "descending";
      head.setAttribute("aria-sort", better === "high" || better === "low" ? rising : "other");
      sort(column, again ? -1 : 1);
      const order = column === 0 ? ["as listed", "the other way round"] : ["best first", "worst first"];
      const name = button.textContent.replace(/ [↑↓→←0]+$/, "");
      const where = column === 0 ? "" : `, ${group[column]}`;
      said.textContent = `Sorted by ${name}${where}: ${order[again ? 1 : 0]}.`;
    });
  });

  const choose = (wanted) => {
    [...groups.cells].slice(1).forEach((cell) => {
      cell.hidden = wanted !== "all" && cell.textContent !== wanted;
    });
    for (const row of [heads, ...body.rows]) {
      [...row.cells].slice(1).forEach((cell, k) => {
        cell.hidden = wanted !== "all" && group[k + 1] !== wanted;
      });
    }
    frame.scrollLeft = 0;
  };

  const select = document.createElement("select");
  const names = [...groups.cells].slice(1).map((cell) => cell.textContent);
  select.append(...names.map((name) => new Option(name, name)), new Option("everything", "all"));
  select.addEventListener("change", () => choose(select.value));
  const label = document.createElement("label");
  label.append("Columns ", select);

  const rows = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "Rows";
  const boxes = document.createElement("fieldset");
  const legend = document.createElement("legend");
  legend.textContent = "Show the rows";
  boxes.append(legend);
  for (const row of body.rows) {
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      row.hidden = !box.checked;
      said.textContent = `${[...body.rows].filter((r) => !r.hidden).length} of ${body.rows.length} rows.`;
    });
    const line = document.createElement("label");
    line.append(box, ` ${row.cells[0].textContent}`);
    boxes.append(line);
  }
  rows.append(summary, boxes);

  const choices = document.createElement("div");
  choices.className = "board-choices";
  choices.append(label, rows);
  frame.before(choices, said);
  choose(names[0]);
})();
