// Opens the page by what it shows; where it cannot, its small picture stays.

const about = JSON.parse(find("about").textContent);
let page = null;
document.body.classList.remove("still");
try {
  page = new (about.view === "sound" ? SoundPage : Page)(about);
} catch (error) {
  document.body.classList.add("still");
  fail(find("still") ? new Error(`${error.message} Here is a small picture of it.`) : error);
}
