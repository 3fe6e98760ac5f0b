// Inside Airflow's frame a link marked data-outer opens in the page around it: the frame itself may not leave its place.
for (const link of document.querySelectorAll("a[data-outer]")) {
  link.addEventListener("click", (event) => {
    if (window.parent === window) return;
    event.preventDefault();
    const outer = window.parent.document.createElement("a");
    outer.href = link.href;
    outer.click();
  });
}
