// Shows the errors of the chosen kind and type. Without it, all are shown.
const form = document.getElementById("filter");
if (form) {
  const errors = [...document.querySelectorAll("[data-kind]")];
  const { kind, type } = form.elements;
  const show = () => {
    let count = 0;
    for (const error of errors) {
      const fits = (!kind.value || error.dataset.kind === kind.value)
        && (!type.value || error.dataset.types.split(" ").includes(type.value));
      error.hidden = !fits;
      count += fits;
    }
    document.getElementById("status").textContent = `${count} of ${errors.length} shown`;
  };
  form.hidden = false;
  form.addEventListener("change", show);
  form.addEventListener("reset", () => setTimeout(show));
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
