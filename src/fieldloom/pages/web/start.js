// Opens the page by what it shows.

const about = JSON.parse(find("about").textContent);
let page = null;
try {
  page = new (about.view === "sound" ? SoundPage : Page)(about);
} catch (error) {
  fail(error);
}
