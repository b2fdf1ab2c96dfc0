// Opens the page by what it shows.

const about = JSON.parse(find("about").textContent);
let page = null;
document.body.classList.remove("still"); // the small picture, which stays where no script runs
try {
  page = new (about.view === "sound" ? SoundPage : Page)(about);
} catch (error) {
  fail(error);
}

// What a page may use that holds this one in a frame, as `fieldloom view` does. setNumbers: shows
// another function of the same shader by all of its numbers, and its name.
window.fieldloom = page && {
  page,
  setNumbers(numbers, name) {
    page.stop?.();
    page.all = null; // of a sound
    find("wrong").hidden = true;
    find("canvas").ariaLabel = document.querySelector("h1").textContent = name;
    page.painter.setNumbers(numbers);
    page.draw();
  },
};
