"use strict";

// Without JavaScript, all steps are shown one below the other. With it, only the selected step is shown.
const stepButtons = [...document.querySelectorAll("#steps button")];

function showStep(shown) {
  for (const button of stepButtons) {
    button.setAttribute("aria-expanded", String(button === shown));
    document.getElementById(button.getAttribute("aria-controls")).hidden = button !== shown;
  }
}

stepButtons.forEach((button, number) => {
  for (const kind of ["pointerenter", "focus", "click"]) button.addEventListener(kind, () => showStep(button));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && stepButtons[number + step]) stepButtons[number + step].focus();
  });
});
showStep(stepButtons[0]);
