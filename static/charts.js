// Draws every [data-chart] from the JSON its address gives.
(() => {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // The library's script follows this one; both have run when the document is there.
  const plotly = new Promise((resolve, reject) => {
    document.addEventListener("DOMContentLoaded", () => {
      if (window.Plotly) resolve(window.Plotly);
      else reject(new Error("the drawing library could not be loaded."));
    });
  });

  function themed(layout, chart) {
    const style = getComputedStyle(chart);
    const line = style.getPropertyValue("--hairline").trim();
    const axes = {};
    for (const name of ["xaxis", "yaxis", "yaxis2"]) {
      if (layout[name]) {
        axes[name] = { gridcolor: line, linecolor: line, zerolinecolor: line, ...layout[name] };
      }
    }
    const muted = style.getPropertyValue("--pico-muted-color").trim();
    const titles = isNarrow(chart) ? { size: 11 } : {};
    for (const axis of Object.values(axes)) axis.title = { ...axis.title, font: titles };
    // Few upright numbers fit beside the names of slices on a phone.
    if (isNarrow(chart) && axes.yaxis?.type === "category" && axes.yaxis.automargin) {
      Object.assign(axes.xaxis, { nticks: 4, tickangle: 0 });
      axes.yaxis.tickfont = { size: 11 };
    }
    return {
      ...layout,
      ...axes,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: style.color },
      title: undefined, // the page's heading says it
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: style.color, family: style.fontFamily, size: 13 },
      hoverlabel: { font: { family: style.fontFamily, size: 13 }, align: "left" },
      // A phone stacks the words of a legend above the panel.
      margin: { ...layout.margin, t: layout.legend && isNarrow(chart) ? 80 : 34 },
    };
  }

  const isNarrow = (chart) => chart.clientWidth < 500;

  function fitColourbars(data, chart) {
    for (const { colorbar } of data) {
      if (!colorbar || !isNarrow(chart)) continue;
      colorbar.title.font = { size: 11 };
      colorbar.tickfont = { size: 11 };
    }
  }

  const TYPES = { f4: Float32Array, i4: Int32Array, u2: Uint16Array, u1: Uint8Array };

  function unpacked(packed) {
    const raw = Uint8Array.from(atob(packed.bdata), (letter) => letter.charCodeAt(0));
    return new TYPES[packed.dtype](raw.buffer);
  }

  // Plotly reads some tags in a label; names of sources and languages are text.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const numbers = new Intl.NumberFormat("en");
  const whole = (number) => numbers.format(number);
  const percent = (share) => `${(100 * share).toFixed(2)}%`;

  function ranksOf(tokens) {
    const order = Array.from(tokens.keys()).sort((a, b) => tokens[b] - tokens[a] || a - b);
    const ranks = [];
    order.forEach((column, place) => { ranks[column] = place + 1; });
    return ranks;
  }

  function feeders(facet, cell) {
    const named = facet.top
      .filter((place) => place.percent[cell])
      .map((place) => `${plain(facet.values[place.value[cell]])} ${place.percent[cell]} %`);
    return `<br>${facet.label}: ${named.join(", ") || "none"}`;
  }

  // What the pointer shows of a heatmap's cells, and which expert each of them is.
  function cellsOf(figure) {
    const { data: [trace], hover } = figure;
    const [rows, columns] = trace.z.shape.split(", ").map(Number);
    const tokens = unpacked(hover.tokens ?? trace.z);
    const others = hover.others && unpacked(hover.others);
    const experts = hover.experts && unpacked(hover.experts);
    const facets = hover.facets.map((facet) => ({
      ...facet,
      top: facet.top.map(({ value, percent }) => ({ value: unpacked(value), percent: unpacked(percent) })),
    }));
    const expertAt = (row, column) => (experts ? experts[row * columns + column] : column);
    const sum = (amounts) => amounts.reduce((total, amount) => total + amount, 0) || 1;

    function words(row) {
      const layer = tokens.subarray(row * columns, (row + 1) * columns);
      const other = others?.subarray(row * columns, (row + 1) * columns);
      const ranks = ranksOf(layer);
      const total = sum(layer);
      const otherTotal = other && sum(other);
      return Array.from(layer, (fed, column) => {
        const head = `<b>Layer ${trace.y[row]}, expert ${expertAt(row, column)}</b>`;
        if (other) {
          const sides = [[fed, total], [other[column], otherTotal]].map(([amount, all], side) =>
            `<br>${plain(hover.names[side])}: ${whole(amount)} tokens, ${percent(amount / all)}`);
          return head + sides.join("");
        }
        return `${head}<br>${whole(fed)} tokens, ${percent(fed / total)} of the layer`
          + `<br>Rank ${ranks[column]} in its layer`
          + facets.map((facet) => feeders(facet, row * columns + column)).join("");
      });
    }

    // A row's words are made when the pointer first comes to it.
    const text = Array.from({ length: rows });
    for (const row of text.keys()) {
      Object.defineProperty(text, row, {
        configurable: true,
        enumerable: true,
        get() {
          const value = words(row);
          Object.defineProperty(text, row, { value });
          return value;
        },
      });
    }
    return { text, expertAt };
  }

  function openCell(chart, figure, expertAt) {
    chart.on("plotly_click", ({ points: [point] }) => {
      const [row, column] = point.pointIndex ?? point.pointNumber;
      const layer = figure.data[0].y[row];
      window.location.assign(
        chart.dataset.cell.replace("{layer}", layer).replace("{expert}", expertAt(row, column)));
    });
  }

  async function draw(chart) {
    const address = chart.dataset.chart;
    if (chart.dataset.drawn === address) return;
    chart.dataset.drawn = address;
    const note = chart.querySelector("[data-note]");
    try {
      const [response, library] = await Promise.all([fetch(address), plotly]);
      const figure = await response.json();
      if (!response.ok) throw new Error(figure.error);
      note?.remove();
      const config = {
        displaylogo: false,
        responsive: true,
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
        toImageButtonOptions: { filename: chart.dataset.name, scale: 2 },
      };
      const cells = figure.hover && cellsOf(figure);
      if (cells) Object.assign(figure.data[0], { text: cells.text, hovertemplate: "%{text}<extra></extra>" });
      fitColourbars(figure.data, chart);
      await library.newPlot(chart, figure.data, themed(figure.layout, chart), config);
      offerPictures(library, chart, figure.layout.title?.text);
      if (cells && chart.dataset.cell) openCell(chart, figure, cells.expertAt);
      chart.dataset.state = "drawn";
    } catch (error) {
      chart.dataset.state = "failed";
      if (note) note.textContent = `The chart could not be drawn: ${error.message} The table below has the same numbers.`;
    }
  }

  // A picture is for a page elsewhere: with its title, on white, whatever the scheme here is.
  function offerPictures(library, chart, title) {
    chart.nextElementSibling?.matches("[data-pictures]") && chart.nextElementSibling.remove();
    const line = document.createElement("p");
    line.className = "pictures";
    line.dataset.pictures = "";
    line.append("The picture as ");
    ["png", "svg"].forEach((format, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "plain";
      button.textContent = format.toUpperCase();
      button.setAttribute("aria-label", `Download ${chart.getAttribute("data-name")} as ${button.textContent}`);
      button.addEventListener("click", () => {
        const font = { ...chart.layout.font, color: "#22262b" };
        const layout = {
          ...chart.layout, font, title: { text: title }, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
          margin: { ...chart.layout.margin, t: 70 },
        };
        const size = { width: chart.clientWidth, height: chart.clientHeight };
        const options = { format, filename: chart.dataset.name, scale: format === "png" ? 2 : 1, ...size };
        library.downloadImage({ data: chart.data, layout }, options);
      });
      if (at) line.append(" or ");
      line.append(button);
    });
    chart.after(line);
  }

  function drawAll() {
    for (const chart of document.querySelectorAll("[data-chart]")) draw(chart);
  }

  function redraw() {
    for (const chart of document.querySelectorAll("[data-chart]")) {
      delete chart.dataset.drawn;
      draw(chart);
    }
  }

  document.addEventListener("htmx:after:swap", drawAll);
  dark.addEventListener("change", redraw);
  drawAll();
})();
