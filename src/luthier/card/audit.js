"use strict";
(() => {
  const controls = document.getElementById("controls");
  if (!controls) return;
  const page = 8;
  const search = document.getElementById("search");
  const nothing = document.getElementById("nothing");
  const buttons = Array.from(controls.querySelectorAll("button"));
  const groups = Array.from(document.querySelectorAll(".group")).map((element) => {
    const items = Array.from(element.querySelectorAll(".item"));
    return {
      element,
      items,
      texts: items.map((item) => `${element.dataset.check} ${item.textContent}`.toLowerCase()),
      end: element.querySelector(".controls-end"),
      status: element.querySelector(".status"),
      room: page,
    };
  });
  let check = "all";

  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let any = false;
    groups.forEach((group) => {
      let found = 0;
      let shown = 0;
      group.items.forEach((item, index) => {
        const fits = words.every((word) => group.texts[index].includes(word));
        if (fits) found += 1;
        item.hidden = !(fits && found <= group.room);
        if (!item.hidden) shown += 1;
      });
      const wanted = (check === "all" || group.element.dataset.check === check) && found > 0;
      group.element.hidden = !wanted;
      any = any || wanted;
      group.end.hidden = shown >= found;
      group.status.textContent = `${shown} of ${found} shown`;
    });
    nothing.hidden = any;
  };
  const restart = () => {
    groups.forEach((group) => {
      group.room = check === "all" ? page : page * 3;
    });
    show();
  };
  const choose = (name) => {
    check = name;
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other.dataset.check === name)));
    restart();
  };

  buttons.forEach((button) => button.addEventListener("click", () => choose(button.dataset.check)));
  search.addEventListener("input", restart);
  groups.forEach((group) =>
    group.end.querySelector("button").addEventListener("click", () => {
      group.room += page * 3;
      show();
    }),
  );
  window.addEventListener("hashchange", () => {
    if (location.hash.startsWith("#check-")) {
      choose("all");
      document.querySelector(`[id="${location.hash.slice(1)}"]`)?.scrollIntoView();
    }
  });
  controls.hidden = false;
  show();
})();
