"use strict";
(() => {
  const filters = document.querySelector(".filters");
  const cards = [...document.querySelectorAll(".card")];
  const groups = [...document.querySelectorAll(".group")];
  const shown = document.querySelector("#shown");
  const chosen = (name) => filters.elements.namedItem(name).value;

  const apply = () => {
    const label = chosen("label");
    const verdict = chosen("verdict");
    const method = chosen("method");
    for (const card of cards) {
      card.hidden = (label !== "" && card.dataset.label !== label) || (verdict !== "" && card.dataset.verdict !== verdict);
      for (const map of card.querySelectorAll("[data-method]")) {
        map.hidden = method !== "" && map.dataset.method !== method;
      }
    }
    for (const group of groups) {
      group.hidden = !group.querySelector(".card:not([hidden])");
    }
    const count = cards.filter((card) => !card.hidden).length;
    shown.textContent = count === cards.length ? `${count} images shown` : `${count} of ${cards.length} images shown`;
  };

  filters.hidden = false;
  filters.addEventListener("change", apply);
  filters.addEventListener("reset", () => setTimeout(apply));
  apply();
})();
