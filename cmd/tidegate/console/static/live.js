// A page that says data-live is read again every five seconds, unless somebody
// is about to act on it. Times that say data-until count down.
"use strict";
(() => {
  const every = 5000;

  const left = (ms) => {
    const s = Math.max(0, Math.round(ms / 1000)), d = Math.floor(s / 86400), h = Math.floor(s / 3600), m = Math.floor(s / 60);
    if (d > 0) return `${d} d ${h % 24} h`;
    if (h > 0) return `${h} h ${m % 60} min`;
    return m > 0 ? `${m} min ${s % 60} s` : `${s} s`;
  };

  const count = () => {
    for (const t of document.querySelectorAll("time[data-until]")) {
      const end = Date.parse(t.dateTime);
      if (!Number.isNaN(end)) t.textContent = left(end - Date.now());
    }
  };

  const busy = (main) => {
    const a = document.activeElement;
    if (main.contains(a) && a.closest("form, details")) return true;
    if (main.querySelector("details[open]")) return true;
    if (String(getSelection())) return true;
    return [...main.querySelectorAll("input:not([type=hidden])")].some((i) => i.value !== i.defaultValue);
  };

  const refresh = async () => {
    const main = document.querySelector("main[data-live]");
    if (!main || document.hidden || busy(main)) return;
    const res = await fetch(location.href, { credentials: "same-origin", redirect: "follow" });
    if (res.redirected) { location.reload(); return; }
    if (!res.ok) return;
    const next = new DOMParser().parseFromString(await res.text(), "text/html").querySelector("main");
    if (!next || busy(main)) return;
    main.replaceChildren(...next.childNodes);
    if (!next.hasAttribute("data-live")) main.removeAttribute("data-live");
    count();
  };

  setInterval(count, 1000);
  setInterval(() => refresh().catch(() => {}), every);
})();
