"use strict";
const search = document.getElementById("search");
if (search) {
  const cases = [...document.querySelectorAll(".case")];
  const buttons = [...document.querySelectorAll("button[data-mark]")];
  const tag = document.getElementById("tag");
  const count = document.getElementById("count");
  let mark = "";
  const look = () => {
    const text = search.value.toLowerCase();
    let shown = 0;
    for (const one of cases) {
      const fits =
        (!mark || one.dataset.marks.split(" ").includes(mark)) &&
        (!tag || !tag.value || one.dataset.tags.split("\n").includes(tag.value)) &&
        one.dataset.text.includes(text);
      one.hidden = !fits;
      if (fits) shown += 1;
    }
    count.textContent = shown + " of " + cases.length;
  };
  search.addEventListener("input", look);
  if (tag) tag.addEventListener("change", look);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      mark = button.dataset.mark;
      for (const other of buttons) other.classList.toggle("on", other === button);
      look();
    });
  }
}
