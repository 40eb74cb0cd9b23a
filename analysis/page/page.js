"use strict";
(() => {
  // Themes: automatic, light, dark.
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const order = ["auto", "light", "dark"];
  let now = 0;
  theme.addEventListener("click", () => {
    now = (now + 1) % 3;
    if (now === 0) root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", order[now]);
    theme.textContent = "theme: " + order[now];
  });
  theme.hidden = false;

  // Loss switches work without this script (CSS :has); these two buttons set them all.
  const boxes = [...document.querySelectorAll(".chip input")];
  for (const [id, on] of [["all", true], ["none", false]]) {
    const button = document.getElementById(id);
    button.addEventListener("click", () => boxes.forEach((box) => (box.checked = on)));
    button.hidden = false;
  }

  // Questions unfold one by one without this script, and where a link or a search leads into them;
  // this button sets them all.  On paper everything is open, also in browsers that do not know how
  // to say so in CSS.
  const folds = [...document.querySelectorAll("details")];
  const unfold = document.getElementById("unfold");
  const label = () => {
    unfold.textContent = folds.every((fold) => fold.open) ? "close all" : "open all";
  };
  unfold.addEventListener("click", () => {
    const open = !folds.every((fold) => fold.open);
    folds.forEach((fold) => (fold.open = open));
  });
  folds.forEach((fold) => fold.addEventListener("toggle", label));
  label();
  unfold.hidden = folds.length === 0;
  const follow = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target === null) return;
    let closed = false;
    for (let at = target; at !== null; at = at.parentElement.closest("details")) {
      if (at.matches("details") && !at.open) closed = at.open = true;
    }
    if (closed) target.scrollIntoView();
  };
  window.addEventListener("hashchange", follow);
  follow();
  let before = [];
  window.addEventListener("beforeprint", () => {
    before = folds.filter((fold) => !fold.open);
    before.forEach((fold) => (fold.open = true));
  });
  window.addEventListener("afterprint", () => before.forEach((fold) => (fold.open = false)));

  // Tables: every column head sorts; a third click restores the report's order.
  for (const table of document.querySelectorAll("figure.table table")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.textContent = "";
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        const numeric = head.classList.contains("n");
        const steps = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
        const next = before === null ? steps[0] : before === steps[0] ? steps[1] : null;
        if (next === null) return body.append(...rows);
        head.setAttribute("aria-sort", next);
        const value = (row) => {
          const cell = row.cells[column];
          if (!numeric) return cell.textContent;
          const text = cell.dataset.v ?? cell.textContent.replace("\u2212", "-");
          return text === "" || Number.isNaN(Number.parseFloat(text)) ? null : Number.parseFloat(text);
        };
        const sign = next === "ascending" ? 1 : -1;
        body.append(...rows.map((row, place) => [value(row), place, row]).sort((a, b) => {
          if (a[0] === null || b[0] === null) return (a[0] === null) - (b[0] === null) || a[1] - b[1];
          const less = numeric ? a[0] - b[0] : a[0].localeCompare(b[0], "en", { numeric: true });
          return sign * less || a[1] - b[1];
        }).map((entry) => entry[2]));
      });
    });
  }

  // The CSV behind every figure and table is inside the page: no file beside it is needed.
  for (const files of document.querySelectorAll(".files")) {
    const link = files.querySelector("a");
    const packed = files.nextElementSibling;
    if (!("DecompressionStream" in window)) continue;
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const csv = await new Response(stream).blob();
      const save = document.createElement("a");
      save.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
      save.download = files.dataset.name;
      save.click();
      setTimeout(() => URL.revokeObjectURL(save.href));
    });
  }

  // Where am I: mark the section in view.
  const links = new Map(
    [...document.querySelectorAll("nav.toc a")].map((a) => [decodeURIComponent(a.hash.slice(1)), a]),
  );
  if ("IntersectionObserver" in window) {
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((link) => link.classList.remove("here"));
        links.get(entry.target.querySelector("section").id)?.classList.add("here");
      }
    }, { rootMargin: "-15% 0px -75% 0px" });
    document.querySelectorAll("details.question").forEach((question) => seen.observe(question));
  }
})();
