// Draws every [data-chart] from the JSON its address gives; plotly is fetched when one is there.
(() => {
  "use strict";
  const plotlySource = document.currentScript.dataset.plotly;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let plotly;

  function loadPlotly() {
    plotly ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = plotlySource;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("the drawing library could not be loaded"));
      document.head.append(script);
    });
    return plotly;
  }

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
    const titles = chart.clientWidth < 500 ? { size: 11 } : {};
    for (const axis of Object.values(axes)) axis.title = { ...axis.title, font: titles };
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
      margin: { ...layout.margin, t: 30 },
    };
  }

  async function draw(chart) {
    const address = chart.dataset.chart;
    if (chart.dataset.drawn === address) return;
    chart.dataset.drawn = address;
    const note = chart.querySelector("[data-note]");
    try {
      const headers = { accept: "application/json" };
      const [library, response] = await Promise.all([loadPlotly(), fetch(address, { headers })]);
      const figure = await response.json();
      if (!response.ok) throw new Error(figure.error);
      note?.remove();
      const config = {
        displaylogo: false,
        responsive: true,
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
        toImageButtonOptions: { filename: chart.dataset.name, scale: 2 },
      };
      await library.newPlot(chart, figure.data, themed(figure.layout, chart), config);
      offerPictures(library, chart, figure.layout.title?.text);
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
