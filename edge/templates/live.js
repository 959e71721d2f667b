// Asks for the part of the page that changes by itself, while the page is looked at and the box is
// ticked. Without this script the page is the same, and is as old as it was loaded.
const live = document.getElementById("live");
const box = document.getElementById("live-on");

async function refresh() {
  if (!live || !box.checked || document.hidden || live.contains(document.activeElement)) return;
  const response = await fetch("/admin/live", { headers: { accept: "text/html" } });
  if (response.redirected || !response.ok) return;
  live.innerHTML = await response.text();
}

if (live) setInterval(() => refresh().catch(() => {}), 2000);
