const field = document.getElementById("filter");
const told = document.getElementById("told");
const rows = [...document.querySelectorAll("tr[data-name]")];
field.parentElement.hidden = false;
field.addEventListener("input", () => {
  const wanted = field.value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows) {
    row.hidden = !row.dataset.name.toLowerCase().includes(wanted);
    shown += !row.hidden;
  }
  told.textContent = wanted ? `${shown} of ${rows.length}` : "";
  for (const folded of document.querySelectorAll("details.blocks")) folded.open = wanted !== "";
});
