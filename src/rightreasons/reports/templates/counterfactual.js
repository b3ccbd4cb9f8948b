"use strict";
(() => {
  const form = document.querySelector(".filters");
  const cards = [...document.querySelectorAll(".card")];
  const gallery = document.querySelector(".gallery");
  const shown = document.querySelector("#shown");
  const field = (name) => form.elements.namedItem(name);

  const apply = () => {
    const pair = field("pair").value;
    const verdict = field("verdict").value;
    for (const card of cards) {
      card.hidden = (pair !== "" && card.dataset.pair !== pair) || (verdict !== "" && card.dataset.verdict !== verdict);
    }
    gallery.style.setProperty("--cover", String(field("cover").value / 100));
    gallery.classList.toggle("with-edges", field("edges").checked);
    gallery.classList.toggle("with-contours", field("contours").checked);
    const count = cards.filter((card) => !card.hidden).length;
    shown.textContent = count === cards.length ? `${count} shown` : `${count} of ${cards.length} shown`;
  };

  const per = (share) => `${(share / 10).toFixed(1)}\u00a0%`;

  const walk = (card) => {
    const slider = card.querySelector("input[type=range]");
    const play = card.querySelector(".play");
    const label = card.querySelector(".where");
    const steps = JSON.parse(card.dataset.steps);
    const chances = card.querySelectorAll("td.now");
    const marker = card.querySelector(".marker");
    const last = steps.length - 1;
    let timer = 0;

    const place = () => {
      const step = Number(slider.value);
      const share = step / last;
      card.style.setProperty("--way", String(share));
      label.textContent = step === last ? "Counterfactual" : step === 0 ? "Original" : `${Math.round(100 * share)}\u00a0% of the way`;
      chances.forEach((cell, k) => {
        cell.querySelector(".figure").textContent = per(steps[step][k]);
        cell.querySelector("i").style.width = `${steps[step][k] / 10}%`;
      });
      marker.setAttribute("x1", String(100 * share));
      marker.setAttribute("x2", String(100 * share));
      slider.setAttribute("aria-valuetext", `${Math.round(100 * share)} per cent of the way`);
    };
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
    };
    play.addEventListener("click", () => {
      if (timer) {
        stop();
        return;
      }
      slider.value = "0";
      place();
      play.textContent = "Stop";
      timer = setInterval(() => {
        slider.value = String(Number(slider.value) + 1);
        place();
        if (Number(slider.value) === last) {
          stop();
        }
      }, 90);
    });
    slider.addEventListener("input", () => {
      stop();
      place();
    });
    card.querySelector(".controls").hidden = false;
    place();
  };

  cards.forEach(walk);
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
})();
