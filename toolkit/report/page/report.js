"use strict";
(() => {
  const byId = (name) => document.getElementById(name);

  // Gap table: sorted by any column, empty cells last; filtered by words, network and rung.
  const table = byId("gap-table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.key;

  function compare(one, other, numeric) {
    if (one === "" || other === "") return (one === "") - (other === "");
    return numeric ? Number(one) - Number(other) : one.localeCompare(other);
  }

  function sortBy(column) {
    const head = heads[column];
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    heads.forEach((cell) => cell.setAttribute("aria-sort", cell === head ? direction : "none"));
    const sign = direction === "ascending" ? 1 : -1;
    const values = [...body.rows].map((row) => key(row, column)).filter((value) => value !== "");
    const numeric = values.every((value) => !Number.isNaN(Number(value)));
    const rows = [...body.rows].sort((a, b) => {
      const [one, other] = [key(a, column), key(b, column)];
      const order = compare(one, other, numeric);
      return one === "" || other === "" ? order : sign * order;
    });
    body.append(...rows);
  }
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => sortBy(column)));

  function filterRows() {
    const words = byId("gap-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [network, rung] = [byId("gap-network").value, byId("gap-rung").value];
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word))
        && (!network || row.dataset.network === network) && (!rung || row.dataset.rung === rung);
      row.hidden = !fits;
      shown += fits;
    }
    byId("gap-count").value = `${shown} of ${body.rows.length} rows`;
  }
  byId("gap-controls").addEventListener("input", filterRows);
  byId("gap-controls").addEventListener("reset", () => setTimeout(filterRows));
  byId("gap-controls").addEventListener("submit", (event) => event.preventDefault());

  // Samples: filtered by verdict, opened and closed together.
  const samples = [...document.querySelectorAll("details.sample")];
  byId("sample-verdict").addEventListener("input", (event) => {
    const wanted = event.target.value;
    samples.forEach((one) => { one.hidden = Boolean(wanted) && !one.dataset.verdicts.split(" ").includes(wanted); });
    byId("sample-count").value = `${samples.filter((one) => !one.hidden).length} of ${samples.length} samples`;
  });
  const openAll = (open) => samples.forEach((one) => { if (!one.hidden) one.open = open; });
  byId("open-all").addEventListener("click", () => openAll(true));
  byId("close-all").addEventListener("click", () => openAll(false));

  // Curves: three plots side by side, or below each other where the page is narrow.
  function places(width) {
    const stacked = width < 680;
    const small = !stacked && width < 900;
    const layout = {
      width,
      height: stacked ? 1140 : small ? 300 : 400,
      margin: { l: 62, r: 12, t: stacked ? 90 : 60, b: 50 },
      "font.size": small ? 10 : 13,
    };
    [0, 1, 2].forEach((k) => {
      const name = k ? String(k + 1) : "";
      const across = [0.36 * k, 0.36 * k + 0.28];
      const down = [0.36 * (2 - k), 0.36 * (2 - k) + 0.28];
      layout[`xaxis${name}.domain`] = stacked ? [0, 1] : across;
      layout[`yaxis${name}.domain`] = stacked ? down : [0, 1];
    });
    return layout;
  }

  // Plotly's legend answers to a pointer only; this makes its entries buttons for the keyboard and screen readers.
  function nameLegend(plot) {
    plot.querySelectorAll(".legend .traces").forEach((entry) => {
      const button = entry.querySelector(".legendtoggle");
      const text = entry.querySelector(".legendtext").textContent;
      const trace = plot._fullData.find((one) => one.name === text);
      button.setAttribute("tabindex", "0");
      button.setAttribute("role", "button");
      button.setAttribute("aria-label", `curve ${text}`);
      button.setAttribute("aria-pressed", String(trace.visible === true));
      button.onkeydown = (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        const group = plot._fullData.filter((one) => one.legendgroup === trace.legendgroup).map((one) => one.index);
        const visible = trace.visible === true ? "legendonly" : true;
        Plotly.restyle(plot, { visible }, group).then(() => {
          const again = [...plot.querySelectorAll(".legendtoggle")];
          again.find((one) => one.getAttribute("aria-label") === `curve ${text}`)?.focus();
        });
      };
    });
  }

  const plots = [];
  JSON.parse(byId("panels").textContent).forEach((panel, k) => {
    const plot = byId(`curve-${k}`);
    const options = { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
    Plotly.newPlot(plot, panel.data, panel.layout, options).then(() => {
      plots.push(plot);
      plot.on("plotly_afterplot", () => nameLegend(plot));
      return Plotly.relayout(plot, places(plot.clientWidth));
    }).then(() => { plot.dataset.ready = "yes"; });
  });

  const place = (width) => plots.forEach((plot) => Plotly.relayout(plot, places(width ?? plot.parentElement.clientWidth)));
  let waiting = 0;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => place(), 150); });

  // Print the curves as wide as the paper; sample sections print as they are, open or closed.
  window.addEventListener("beforeprint", () => { place(690); });
  window.addEventListener("afterprint", () => place());
})();
