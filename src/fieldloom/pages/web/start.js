// Opens the page by what it shows.

const about = JSON.parse(find("about").textContent);
let page = null;
document.body.classList.remove("still"); // the small picture, which stays where no script runs
try {
  page = new (about.view === "sound" ? SoundPage : Page)(about);
} catch (error) {
  fail(error);
}
