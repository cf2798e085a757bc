"use strict";
(() => {
  const list = document.getElementById("rows");
  if (!list) return;
  const rows = Array.from(list.children);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const controls = document.getElementById("controls");
  const buttons = Array.from(controls.querySelectorAll("button"));
  const search = document.getElementById("search");
  const status = document.getElementById("status");
  const more = document.getElementById("more");
  const page = 12;
  let kind = "all";
  let room = page;

  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    let shown = 0;
    rows.forEach((row, index) => {
      const fits =
        (kind === "all" || row.dataset.kind === kind) && words.every((word) => texts[index].includes(word));
      if (fits) found += 1;
      row.hidden = !(fits && found <= room);
      if (!row.hidden) shown += 1;
    });
    status.textContent = found ? `${shown} of ${found} shown` : "Nothing matches.";
    more.hidden = shown >= found;
  };

  buttons.forEach((button) =>
    button.addEventListener("click", () => {
      kind = button.dataset.kind;
      room = page;
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      show();
    }),
  );
  search.addEventListener("input", () => {
    room = page;
    show();
  });
  more.addEventListener("click", () => {
    room += page * 2;
    show();
  });
  controls.hidden = false;
  show();
})();
