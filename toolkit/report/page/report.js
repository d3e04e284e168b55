"use strict";
(() => {
  const byId = (name) => document.getElementById(name);

  // Tables: sorted by any column, empty cells last; filtered by words and by the chosen value of a key.
  function compare(one, other, numeric) {
    if (one === "" || other === "") return (one === "") - (other === "");
    return numeric ? Number(one) - Number(other) : one.localeCompare(other);
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const key = (row, column) => row.cells[column].dataset.key;
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

    const form = document.querySelector(`form[data-table="${table.id}"]`);
    const choices = [...form.querySelectorAll("select")];
    function filterRows() {
      const words = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        const fits = words.every((word) => text.includes(word))
          && choices.every((one) => !one.value || row.dataset[one.dataset.key] === one.value);
        row.hidden = !fits;
        shown += fits;
      }
      form.querySelector("output").value = `${shown} of ${body.rows.length} rows`;
    }
    form.addEventListener("input", filterRows);
    form.addEventListener("reset", () => setTimeout(filterRows));
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  document.querySelectorAll("table.sortable").forEach(makeSortable);

  // A table that is wider than the page says so, and takes the keyboard's arrows.
  function markWide() {
    document.querySelectorAll(".scroll").forEach((box) => {
      const wide = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("wide", wide);
      if (wide) {
        box.tabIndex = 0;
        box.setAttribute("role", "region");
        box.setAttribute("aria-label", box.querySelector("caption").textContent);
      } else {
        ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
      }
    });
  }
  document.querySelectorAll("details").forEach((one) => one.addEventListener("toggle", markWide));

  // Samples: filtered by verdict, opened and closed together.
  const samples = [...document.querySelectorAll("details.sample")];
  if (byId("sample-controls")) {
    byId("sample-verdict").addEventListener("input", (event) => {
      const wanted = event.target.value;
      samples.forEach((one) => { one.hidden = Boolean(wanted) && !one.dataset.verdicts.split(" ").includes(wanted); });
      byId("sample-count").value = `${samples.filter((one) => !one.hidden).length} of ${samples.length} samples`;
    });
    const openAll = (open) => samples.forEach((one) => { if (!one.hidden) one.open = open; });
    byId("open-all").addEventListener("click", () => openAll(true));
    byId("close-all").addEventListener("click", () => openAll(false));
    byId("sample-controls").addEventListener("submit", (event) => event.preventDefault());
  }

  // Curves: plots side by side, or below each other where the page is narrow.
  function places(width, count) {
    const stacked = count > 1 && width < 680;
    const small = count > 1 && !stacked && width < 900;
    const layout = {
      width,
      height: stacked ? 310 * count : small ? 300 : 400,
      margin: { l: 62, r: 12, t: 34, b: 50 },
      "font.size": small ? 10 : 13,
    };
    const share = 1 / (count + 0.3 * (count - 1));  // a third of a plot's size lies between two
    for (let k = 0; k < count; k += 1) {
      const name = k ? String(k + 1) : "";
      const across = [1.3 * share * k, 1.3 * share * k + share];
      const down = [1.3 * share * (count - 1 - k), 1.3 * share * (count - 1 - k) + share];
      layout[`xaxis${name}.domain`] = stacked ? [0, 1] : across;
      layout[`yaxis${name}.domain`] = stacked ? down : [0, 1];
    }
    return layout;
  }

  // The page's own colours, so that curves are read in the dark as in the light; paper is always light.
  const night = window.matchMedia("(prefers-color-scheme: dark)");
  function paint(plot, dark) {
    const colours = dark ? { ink: "#e4e6e8", grid: "#3a4046", page: "#15181b" }
      : { ink: "#222222", grid: "#dddddd", page: "#ffffff" };
    const layout = {
      "font.color": colours.ink, paper_bgcolor: colours.page, plot_bgcolor: colours.page,
      "hoverlabel.bgcolor": colours.page, "hoverlabel.bordercolor": colours.grid,
      "modebar.color": dark ? "#8a9097" : "#767676", "modebar.activecolor": colours.ink, "modebar.bgcolor": colours.page,
    };
    Object.keys(plot.layout).filter((name) => /^[xy]axis/.test(name)).forEach((name) => {
      layout[`${name}.gridcolor`] = colours.grid;
      layout[`${name}.linecolor`] = colours.ink;
      layout[`${name}.tickcolor`] = colours.ink;
      layout[`${name}.zerolinecolor`] = colours.ink;
    });
    const shades = plot.data.map((trace) => trace.meta[dark ? "dark" : "light"]);
    return Plotly.update(plot, { "line.color": shades, "marker.color": shades }, layout);
  }

  // The legend stands above the plot: it never covers the curves, and its entries are buttons.
  function makeLegend(plot, number) {
    document.querySelectorAll(`.legend[data-curve="${number}"] button`).forEach((button) => {
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") !== "true";
        const own = plot.data.flatMap((trace, k) => trace.legendgroup === button.dataset.group ? [k] : []);
        button.setAttribute("aria-pressed", String(shown));
        Plotly.restyle(plot, { visible: shown }, own);
      });
    });
  }

  const plots = [];
  const counts = new Map();
  JSON.parse(byId("panels").textContent).forEach((panel, k) => {
    const plot = byId(`curve-${k}`);
    const width = plot.clientWidth;
    const options = { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
    counts.set(plot, panel.plots);
    Plotly.newPlot(plot, panel.data, { ...panel.layout, width, height: 300 }, options).then(() => {
      plots.push(plot);
      makeLegend(plot, k);
      return Plotly.relayout(plot, places(width, panel.plots));
    }).then(() => paint(plot, night.matches)).then(() => { plot.dataset.ready = "yes"; });
  });

  const place = (width) => plots.forEach((plot) => {
    Plotly.relayout(plot, places(width ?? plot.parentElement.clientWidth, counts.get(plot)));
  });
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { place(); markWide(); }, 150);
  });
  night.addEventListener("change", () => plots.forEach((plot) => paint(plot, night.matches)));
  markWide();

  // Print the curves as wide as the paper and in its colours; sample sections print as they are, open or closed.
  window.addEventListener("beforeprint", () => { place(690); plots.forEach((plot) => paint(plot, false)); });
  window.addEventListener("afterprint", () => { place(); plots.forEach((plot) => paint(plot, night.matches)); });
})();
